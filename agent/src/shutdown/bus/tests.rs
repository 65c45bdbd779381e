#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! What a bus may send, and what it may not make of us. The conversation with a real bus is tested in `tests/`.

use proptest::prelude::*;

use super::*;

fn round(fields: &[(u8, char, &str)], signature: &str, body: &[u8]) -> Message {
    let bytes = compose(SIGNAL, 7, fields, signature, body);
    assert_eq!(whole(&bytes).unwrap(), Some(bytes.len()));
    parse(&bytes).unwrap().0
}

#[test]
fn what_is_written_is_read() {
    let mut body = Writer::default();
    body.text("shutdown");
    let message = round(
        &[(2, 's', "org.example.I"), (3, 's', "Member"), (7, 's', ":1.5")],
        "s",
        &body.0,
    );
    assert_eq!(
        (
            message.interface.as_str(),
            message.member.as_str(),
            message.sender.as_str()
        ),
        ("org.example.I", "Member", ":1.5")
    );
    assert_eq!(message.reply_to, None);
    assert_eq!(message.arguments().text(), Some("shutdown"));
}

#[test]
fn variants_are_read_by_their_type_alone() {
    let mut body = Writer::default();
    body.signature("t");
    body.align(8);
    body.0.extend_from_slice(&5_000_000_u64.to_le_bytes());
    let number = Reader {
        bytes: &body.0,
        at: 0,
    };
    assert_eq!(number.clone().variant_u64(), Some(5_000_000));
    assert_eq!(number.clone().variant_truth(), None);
}

#[test]
fn a_message_that_says_it_is_huge_is_refused_before_it_is_read() {
    let mut bytes = compose(SIGNAL, 1, &[], "", &[]);
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(whole(&bytes), Err(BusError::Nonsense(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, at in 0_usize..64, value: u8) {
        let _ = whole(&bytes).map(|_| parse(&bytes));
        let mut message = compose(SIGNAL, 1, &[(2, 's', "org.example.I"), (3, 's', "M")], "s", &[1, 0, 0, 0, 65, 0]);
        if let Some(byte) = message.get_mut(at) {
            *byte = value;
        }
        if let Ok((message, _)) = parse(&message) {
            let mut reader = message.arguments();
            let _ = (reader.text(), reader.truth(), reader.variant_u64(), reader.variant_truth());
        }
    }
}
