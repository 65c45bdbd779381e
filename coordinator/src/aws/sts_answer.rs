//! The answer of `GetCallerIdentity`, read so strictly that nothing else can pass for it.
//!
//! Not an XML parser: elements in the documented nesting, without attributes but the one namespace, without comments,
//! sections, declarations of types or entities
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>).

use crate::serve::attest::ec2::Signer;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Bytes of a text; an ARN has at most 2,048.
const LONGEST: usize = 2048;

/// An answer that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its answer is not that of GetCallerIdentity: {expected} is expected at {at:?}")]
pub(super) struct BadAnswer {
    expected: String,
    at: String,
}

/// Who signed, by the answer's text.
pub(super) fn signer(text: &str) -> Result<Signer, BadAnswer> {
    let mut reader = Reader { rest: text };
    reader.declaration();
    let root = "GetCallerIdentityResponse";
    reader.exactly(&format!("<{root} xmlns=\"{NAMESPACE}\">"))?;
    reader.exactly("<GetCallerIdentityResult>")?;
    let (mut arn, mut user_id, mut account) = (None, None, None);
    for _ in 0..3 {
        let (name, field) = [
            ("Arn", &mut arn),
            ("UserId", &mut user_id),
            ("Account", &mut account),
        ]
        .into_iter()
        .find(|(name, field)| field.is_none() && reader.is_at(name))
        .ok_or_else(|| reader.bad("one of Arn, UserId and Account"))?;
        *field = Some(reader.element(name)?);
    }
    reader.exactly("</GetCallerIdentityResult>")?;
    reader.exactly("<ResponseMetadata>")?;
    reader.element("RequestId")?;
    reader.exactly("</ResponseMetadata>")?;
    reader.exactly(&format!("</{root}>"))?;
    reader.end()?;
    match (arn, user_id, account) {
        (Some(arn), Some(user_id), Some(account)) => Ok(Signer {
            account,
            arn,
            user_id,
        }),
        _ => Err(reader.bad("all of Arn, UserId and Account")),
    }
}

/// The code of an error's answer, for people.
pub(super) fn error_code(text: &str) -> String {
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code);
    let printable = code.chars().filter(char::is_ascii_alphanumeric);
    printable.take(80).collect()
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn bad(&self, expected: &str) -> BadAnswer {
        BadAnswer {
            expected: expected.to_owned(),
            at: self.rest.chars().take(60).collect(),
        }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn declaration(&mut self) {
        let rest = self.rest.strip_prefix("<?xml version=\"1.0\"");
        if let Some((_, rest)) = rest.and_then(|rest| rest.split_once("?>")) {
            self.rest = rest;
        }
    }

    fn exactly(&mut self, token: &str) -> Result<(), BadAnswer> {
        self.space();
        self.rest = self.rest.strip_prefix(token).ok_or_else(|| self.bad(token))?;
        Ok(())
    }

    fn is_at(&mut self, name: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix('<');
        rest.and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('>'))
    }

    /// `<name>text</name>`, whose text has nothing that would need to be escaped.
    fn element(&mut self, name: &str) -> Result<String, BadAnswer> {
        self.exactly(&format!("<{name}>"))?;
        let (text, _) = self
            .rest
            .split_once('<')
            .ok_or_else(|| self.bad("the end of a text"))?;
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'&' | b'>' | b'"' | b'\'');
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(plain) {
            return Err(self.bad("a plain text"));
        }
        let text = text.to_owned();
        self.rest = self.rest.get(text.len()..).unwrap_or_default();
        self.exactly(&format!("</{name}>"))?;
        Ok(text)
    }

    fn end(&mut self) -> Result<(), BadAnswer> {
        self.space();
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.bad("nothing more"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
  <GetCallerIdentityResult>
    <Arn>arn:aws:sts::123456789012:assumed-role/aws:ec2-instance/i-0123456789abcdef0</Arn>
    <UserId>123456789012:aws:ec2-instance:i-0123456789abcdef0</UserId>
    <Account>123456789012</Account>
  </GetCallerIdentityResult>
  <ResponseMetadata>
    <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>
  </ResponseMetadata>
</GetCallerIdentityResponse>
";

    #[test]
    fn the_documented_answer_is_read_in_any_order_of_its_fields() {
        let read = signer(ANSWER).unwrap();
        assert_eq!(read.account, "123456789012");
        assert_eq!(read.user_id, "123456789012:aws:ec2-instance:i-0123456789abcdef0");
        let (arn, rest) = ANSWER.split_once("<UserId>").unwrap();
        let (user, rest) = rest.split_once("<Account>").unwrap();
        let (head, arn) = arn.split_once("<Arn>").unwrap();
        let turned = format!("<?xml version=\"1.0\"?>{head}<UserId>{user}<Arn>{arn}<Account>{rest}");
        assert_eq!(signer(&turned).unwrap(), read);
    }

    #[test]
    fn nothing_else_passes_for_it() {
        for (from, to) in [
            ("<Account>123456789012</Account>", ""),
            ("<Account>", "<Account x=\"1\">"),
            (
                "<Account>123456789012</Account>",
                "<Account>1</Account><Account>2</Account>",
            ),
            ("</UserId>", "</UserId><!-- -->"),
            ("123456789012</Account>", "<![CDATA[123456789012]]></Account>"),
            ("123456789012</Account>", "&x;</Account>"),
            ("123456789012</Account>", "</Account>"),
            ("2011-06-15/", "2011-06-15"),
            ("GetCallerIdentityResult>", "Result>"),
            ("<ResponseMetadata>", "<ErrorResponse>"),
            (
                "<GetCallerIdentityResponse",
                "<!DOCTYPE x><GetCallerIdentityResponse",
            ),
            ("</GetCallerIdentityResponse>\n", "</GetCallerIdentityResponse>x"),
        ] {
            let changed = ANSWER.replace(from, to);
            assert_ne!(changed, ANSWER, "{from}");
            assert!(signer(&changed).is_err(), "{changed}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String, at in 0_usize..700, insert in "[<>&a-z/]{0,6}") {
            let _ = signer(&text);
            let _ = error_code(&text);
            let at = at.min(ANSWER.len());
            let _ = signer(&format!("{}{insert}{}", &ANSWER[..at], &ANSWER[at..]));
        }
    }
}
