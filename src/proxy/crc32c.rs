//! CRC32C, the checksum of RFC 4960, appendix B, byte by byte with a table.

/// Castagnoli's polynomial, its bits in reverse order.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each byte does to an empty checksum.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation)]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The checksum of bytes that are in several pieces.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    let bytes = pieces.iter().copied().flatten();
    !bytes.fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ crc >> 8
    })
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    /// Goal: the checksum is CRC32C. Method: the check value of the catalogue of CRCs, and the values
    /// of RFC 3720, appendix B.4; each cut in two.
    #[test]
    fn known_values_are_computed() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&b""[..], 0),
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
        ] {
            assert_eq!(crc32c(&[bytes]), crc);
            for (first, rest) in (0..=bytes.len()).map(|at| bytes.split_at(at)) {
                assert_eq!(crc32c(&[first, &[], rest]), crc);
            }
        }
    }
}
