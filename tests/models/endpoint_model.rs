//! Endpoints as text: a printed endpoint can be parsed again, and no endpoint contains a line break.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use condor::{Endpoint, EndpointError, UnixName};
use proptest::prelude::*;

/// Bytes, many of them special for a terminal, for UTF-8 or for the text of an endpoint.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = ["\\", "\\x", "x4", "@", "/", "\0", "\x1b[", "\u{202e}", "\u{fc}", "\u{1f389}"];
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// The printed form of an endpoint, which is one line.
fn printed(endpoint: &Endpoint) -> String {
    let text = endpoint.to_string();
    assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    text
}

proptest! {
    #[test]
    fn a_name_is_read_as_it_was_printed(name in bytes()) {
        let path = UnixName::from_pathname(OsStr::from_bytes(&name));
        let abstract_name = UnixName::from_abstract_name(&name);
        let too_long = name.len() > UnixName::MAX;
        prop_assert_eq!(too_long, matches!(abstract_name, Err(EndpointError::TooLong { .. })));
        prop_assert_eq!(path.is_ok(), !too_long && !name.is_empty() && !name.contains(&0));
        for name in [path, abstract_name].into_iter().flatten() {
            let endpoint = Endpoint::from(name);
            prop_assert_eq!(printed(&endpoint).parse::<Endpoint>(), Ok(endpoint));
        }
    }

    /// Goal: an endpoint has one printed form, whatever form was parsed. Method: any text.
    #[test]
    fn all_spellings_of_an_endpoint_print_the_same(name in bytes(), is_unix in any::<bool>()) {
        let name = String::from_utf8_lossy(&name);
        let text = if is_unix { format!("unix:{name}") } else { name.into_owned() };
        match text.parse::<Endpoint>() {
            Ok(endpoint) => {
                let text = printed(&endpoint);
                prop_assert_eq!(text.parse::<Endpoint>(), Ok(endpoint));
            }
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }

    #[test]
    fn an_address_is_read_as_it_was_printed(addr in any::<std::net::SocketAddr>()) {
        // The text form has no flow label.
        let mut addr = addr;
        if let std::net::SocketAddr::V6(addr) = &mut addr {
            addr.set_flowinfo(0);
        }
        let endpoint = Endpoint::from(addr);
        prop_assert_eq!(printed(&endpoint), addr.to_string());
        prop_assert_eq!(addr.to_string().parse::<Endpoint>(), Ok(endpoint));
    }
}
