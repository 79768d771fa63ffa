//! Frames whose payload is written straight into the output: the header is filled in afterwards.

use super::{Framing, Side};
use crate::reason::FrameError;

impl Framing {
    /// Begins a frame whose payload will be appended to `out`: appends what goes before it. Returns
    /// how many bytes will go behind it, and the most bytes that the payload may have. `None`, and
    /// appends nothing, if this framing needs the whole payload at once.
    pub(crate) fn begin(&self, out: &mut Vec<u8>) -> Option<(usize, usize)> {
        match &self.output {
            Side::Field(field) => {
                field.begin(out);
                Some((0, field.effective_max()))
            }
            // A carriage return at the end does not count.
            Side::Lines(lines) => Some((1, lines.max().saturating_add(1))),
            Side::Raw => Some((0, usize::MAX)),
            Side::Custom(_) => None,
        }
    }

    /// The largest packet in bytes that is written into a buffer of its own first, because the framing
    /// needs the whole of it. Zero if it is written straight into the output.
    pub(crate) fn max_draft(&self) -> usize {
        match &self.output {
            Side::Custom(custom) => custom.max,
            Side::Field(_) | Side::Lines(_) | Side::Raw => 0,
        }
    }

    /// Ends a frame that began at `from`. The bytes are then the same as those of
    /// [`encode`](Self::encode), and so are the errors. After an error the caller removes the frame.
    pub(crate) fn end(&self, out: &mut Vec<u8>, from: usize) -> Result<(), FrameError> {
        match &self.output {
            Side::Field(field) => field.fill_in(&mut out[from..]),
            Side::Lines(lines) => {
                lines.check(&out[from..])?;
                out.push(b'\n');
                Ok(())
            }
            Side::Raw | Side::Custom(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{LengthField, Lines, Raw};

    /// Goal: a frame that is filled in afterwards is the frame that `encode` makes, and is refused
    /// for the same reason. Method: all variations of a length field, lines and no framing, with
    /// payloads around each limit, behind output that must not change.
    #[test]
    fn a_frame_in_place_is_the_frame_of_encode() {
        let mut framings = vec![Framing::from(Lines::new(4)), Framing::from(Raw)];
        for width in [1, 2, 3, 4, 8, 5] {
            for (offset, adjustment) in [(0, 0), (3, 0), (0, 2), (1, -2), (0, i32::MIN)] {
                let field = LengthField::new(width).offset(offset).adjustment(adjustment);
                for field in [field, field.little_endian(), field.max_packet(5)] {
                    framings.extend([field, field.keep_header()].map(Framing::from));
                }
            }
        }
        let (mut framed, mut refused) = (0, 0);
        for framing in framings {
            for len in [0, 1, 2, 4, 5, 6, 7, 12, 254, 255, 256, 300] {
                for payload in [vec![b'x'; len], vec![b'\n'; len], vec![b'\r'; len]] {
                    let mut expected = b"before".to_vec();
                    let encoded = framing.encode(&payload, &mut expected);
                    let mut out = b"before".to_vec();
                    let (behind, most) = framing.begin(&mut out).expect("in place");
                    let start = out.len();
                    out.extend_from_slice(&payload);
                    let ended = framing.end(&mut out, 6);
                    assert_eq!(ended, encoded, "{framing:?}, {len} bytes");
                    if ended.is_ok() {
                        assert_eq!(out, expected, "{framing:?}, {len} bytes");
                        assert_eq!(out.len(), start + len + behind);
                        assert!(len <= most);
                    }
                    *if ended.is_ok() { &mut framed } else { &mut refused } += 1;
                }
            }
        }
        assert!(framed > 1_000 && refused > 1_000, "both happen: {framed}, {refused}");
    }
}
