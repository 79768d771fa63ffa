//! Networks of IP addresses, as rules about peers name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::reason::debug_as_display;
use crate::text::Line;

/// All IP addresses that begin with the same bits.
///
/// It is printed and parsed in the usual form: an address, a slash, and the number of bits that all
/// addresses of the network share. The text may leave the slash and the number out. Then the network
/// is that one address.
///
/// An IPv4 address that is written as an IPv6 one (`::ffff:10.1.2.3`) counts as IPv4, in the network
/// as well as in the address that is looked for. So a rule holds however the listening socket
/// reports its clients. No other IPv6 network contains an IPv4 address: `::/0` is all of IPv6 only.
///
/// ```
/// use std::net::IpAddr;
/// use condor::IpNetwork;
///
/// let network: IpNetwork = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse::<IpAddr>().unwrap()));
/// assert!(network.contains("::ffff:10.1.2.3".parse::<IpAddr>().unwrap()));
/// assert!(!network.contains("11.1.2.3".parse::<IpAddr>().unwrap()));
/// # Ok::<(), condor::ParseIpNetworkError>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNetwork {
    /// The first address. No IPv4 address is written as an IPv6 one, and the host bits are 0.
    addr: IpAddr,
    prefix: u8,
}

impl IpNetwork {
    /// Whether it contains all addresses of a family.
    pub(crate) fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    /// The network of the addresses that begin with the first `prefix` bits of `addr`.
    ///
    /// # Errors
    ///
    /// [`ParseIpNetworkError::Prefix`] if an address has fewer bits than `prefix`, and
    /// [`ParseIpNetworkError::HostBits`] if `addr` has other bits than the first `prefix` ones.
    pub fn new(addr: IpAddr, prefix: u8) -> Result<Self, ParseIpNetworkError> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        if prefix > max {
            return Err(ParseIpNetworkError::Prefix { addr, prefix: prefix.into(), max });
        }
        let first = first(addr, prefix);
        if first != addr {
            return Err(ParseIpNetworkError::HostBits { addr, prefix, first });
        }
        // An IPv4 address that is written as an IPv6 one has bits that are set before the 96th. So
        // with a shorter prefix it has host bits, and is refused above.
        Ok(match addr.to_canonical() {
            v4 @ IpAddr::V4(_) if addr.is_ipv6() => Self { addr: v4, prefix: prefix - 96 },
            _ => Self { addr, prefix },
        })
    }

    /// Whether the address is in the network.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.addr.is_ipv4() && first(addr, self.prefix) == self.addr
    }
}

/// The first address of the network that `addr` is in.
fn first(addr: IpAddr, prefix: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from(u32::from(addr) & mask).into()
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from(u128::from(addr) & mask).into()
        }
    }
}

impl From<IpAddr> for IpNetwork {
    /// The network that has this one address.
    fn from(addr: IpAddr) -> Self {
        let addr = addr.to_canonical();
        Self { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Debug for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for IpNetwork {
    type Err = ParseIpNetworkError;

    /// Parses an address with a number of bits (`10.0.0.0/8`, `fd00::/8`), or an address alone.
    fn from_str(text: &str) -> Result<Self, ParseIpNetworkError> {
        let unknown = || ParseIpNetworkError::Unknown(text.to_owned());
        let Some((addr, prefix)) = text.split_once('/') else {
            return text.parse().map(|addr: IpAddr| addr.into()).map_err(|_| unknown());
        };
        // `parse` would also take a sign and zeros before the number.
        let digits = prefix.bytes().all(|c| c.is_ascii_digit())
            && (prefix == "0" || !prefix.starts_with('0'));
        let addr: IpAddr = addr.parse().map_err(|_| unknown())?;
        let prefix: u32 = prefix.parse().ok().filter(|_| digits).ok_or_else(unknown)?;
        match u8::try_from(prefix) {
            Ok(prefix) => Self::new(addr, prefix),
            Err(_) => {
                let max = if addr.is_ipv4() { 32 } else { 128 };
                Err(ParseIpNetworkError::Prefix { addr, prefix, max })
            }
        }
    }
}

/// Why a text, or an address and a number of bits, is not an [`IpNetwork`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIpNetworkError {
    /// The text has none of the known forms. A host name is not one of them.
    #[error("\"{}\" is no network: 10.0.0.0/8, fd00::/8 or an IP address is expected", Line(.0))]
    Unknown(String),
    /// The addresses of this kind have fewer bits.
    #[error("{addr}/{prefix} is no network: a prefix of {prefix} bits is above {max}")]
    Prefix {
        /// The address.
        addr: IpAddr,
        /// The number of bits asked for.
        prefix: u32,
        /// The number of bits of such an address: 32 or 128.
        max: u8,
    },
    /// The address has other bits than those that all addresses of the network share. One of the two
    /// numbers is probably a mistake.
    #[error(
        "{addr}/{prefix} is no network: {addr} has host bits; write {first}/{prefix}, or {addr}"
    )]
    HostBits {
        /// The address.
        addr: IpAddr,
        /// The number of bits asked for.
        prefix: u8,
        /// The first address of the network that the address is in.
        first: IpAddr,
    },
}

debug_as_display!(ParseIpNetworkError {
    Unknown(text),
    Prefix { addr, prefix, max },
    HostBits { addr, prefix, first },
});

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Goal: a network is printed as it is parsed, and an address alone is a network. Method: each
    /// form, with the shortest and the longest prefix.
    #[test]
    fn a_network_is_printed_as_it_is_parsed() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "::/0", "fd00::/8", "::1/128"] {
            assert_eq!(network(text).to_string(), text);
            assert_eq!(format!("{:?}", network(text)), text);
        }
        for (text, printed) in [
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).to_string(), printed);
            assert_eq!(network(text), network(printed));
        }
        assert_eq!(IpNetwork::from(ip("::ffff:192.0.2.1")), network("192.0.2.1"));
        assert_eq!(IpNetwork::from(ip("fd00::7")), network("fd00::7/128"));
    }

    /// Goal: a network contains the addresses with its first bits, and no others. Method: prefixes at
    /// and between the limits of bytes; the addresses next to each end.
    #[test]
    fn a_network_contains_its_addresses() {
        for (text, inside, outside) in [
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"][..], &["::", "::1"][..]),
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0"]),
            ("172.16.0.0/12", &["172.16.0.0", "172.31.255.255"], &["172.15.255.255", "172.32.0.0"]),
            ("192.0.2.1/32", &["192.0.2.1"], &["192.0.2.0", "192.0.2.2"]),
            ("::/0", &["::", "fd00::1", "::10.0.0.1"], &["0.0.0.0", "10.0.0.1"]),
            ("fd00::/9", &["fd00::", "fd7f:ffff::1"], &["fd80::", "fcff::", "253.0.0.0"]),
            ("::1", &["::1"], &["::", "::2", "0.0.0.1"]),
        ] {
            for addr in inside {
                assert!(network(text).contains(ip(addr)), "{text} {addr}");
            }
            for addr in outside {
                assert!(!network(text).contains(ip(addr)), "{text} {addr}");
            }
        }
    }

    /// Goal: an IPv4 address counts as IPv4 however it is written. Method: both spellings of a network
    /// with both spellings of an address.
    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        for text in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            for (addr, inside) in [("10.1.2.3", true), ("11.1.2.3", false)] {
                let mapped = format!("::ffff:{addr}");
                assert_eq!(network(text).contains(ip(addr)), inside);
                assert_eq!(network(text).contains(ip(&mapped)), inside);
            }
        }
        assert!(!network("::/0").contains(ip("::ffff:10.1.2.3")));
        assert!(network("0.0.0.0/0").contains(ip("::ffff:10.1.2.3")));
    }

    /// Goal: what is no network is refused. The message names the value, and what it should be.
    #[test]
    fn what_is_no_network_is_refused_and_named() {
        let expected = "is no network: 10.0.0.0/8, fd00::/8 or an IP address is expected";
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "10/8",
            "localhost",
            "localhost/8",
            "10.0.0.0/x",
            "[::1]/128",
            "fe80::%1/64",
            "10.0.0.0/99999999999999999999",
        ] {
            let error = text.parse::<IpNetwork>().expect_err(text);
            assert_eq!(error.to_string(), format!("\"{text}\" {expected}"));
            assert_eq!(format!("{error:?}"), error.to_string());
        }
        for (text, what) in [
            ("10.0.0.0/33", "a prefix of 33 bits is above 32"),
            ("10.0.0.0/256", "a prefix of 256 bits is above 32"),
            ("::/129", "a prefix of 129 bits is above 128"),
            ("::/256", "a prefix of 256 bits is above 128"),
            ("10.0.0.1/8", "10.0.0.1 has host bits; write 10.0.0.0/8, or 10.0.0.1"),
            ("10.0.0.1/0", "10.0.0.1 has host bits; write 0.0.0.0/0, or 10.0.0.1"),
            ("fd00::1/64", "fd00::1 has host bits; write fd00::/64, or fd00::1"),
            (
                "::ffff:10.0.0.0/95",
                "::ffff:10.0.0.0 has host bits; write ::fffe:0:0/95, or ::ffff:10.0.0.0",
            ),
        ] {
            let error = text.parse::<IpNetwork>().expect_err(text);
            assert_eq!(error.to_string(), format!("{text} is no network: {what}"));
        }
        assert_eq!(IpNetwork::new(ip("10.0.0.0"), 8), Ok(network("10.0.0.0/8")));
        assert!(IpNetwork::new(ip("::ffff:10.0.0.1"), 104).is_err());
    }
}
