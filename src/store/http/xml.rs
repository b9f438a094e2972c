//! The XML documents of stores.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads a document whose outermost element is `root`.
///
/// # Errors
/// `WrongAnswer` if it is another document, or none: a proxy's page of HTML must not pass for an empty list. So it is where
/// anything follows the outermost element: a server that fails in the middle of a list may close it and write its error behind.
pub(in crate::store) fn document<T: DeserializeOwned>(body: &[u8], root: &str) -> Result<T> {
    let unreadable =
        |why: String| Error::wrong_answer(format!("the store's answer is no {root} document: {why}"));
    let text = std::str::from_utf8(body).map_err(|e| unreadable(e.to_string()))?;
    let text = text.trim_start_matches('\u{feff}');
    check_outside(text, root).map_err(unreadable)?;
    quick_xml::de::from_str(text).map_err(|e| unreadable(e.to_string()))
}

/// Checks that `text` is one element `root` and nothing else but space and comments; the error says what is wrong.
fn check_outside(text: &str, root: &str) -> std::result::Result<(), String> {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut is_begun) = (0_u64, false);
    loop {
        let event = reader.read_event().map_err(|e| e.to_string())?;
        match &event {
            Event::Start(e) | Event::Empty(e) if depth == 0 => {
                let name = e.local_name();
                if is_begun || name.as_ref() != root {
                    let what = if is_begun { "it is followed by" } else { "it is" };
                    return Err(format!("{what} '{}'", name.as_ref()));
                }
                (depth, is_begun) = (u64::from(matches!(event, Event::Start(_))), true);
            }
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(rest) if depth == 0 && is_begun && !rest.trim().is_empty() => {
                return Err(format!("'{}' follows its end", rest.trim()));
            }
            Event::CData(_) | Event::GeneralRef(_) if depth == 0 => {
                return Err("text is around it".to_owned());
            }
            Event::Eof if !is_begun => return Err("it is empty".to_owned()),
            Event::Eof if depth > 0 => return Err("it is cut off".to_owned()),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// The text as the content of an element.
pub(in crate::store) fn escape(text: &str) -> std::borrow::Cow<'_, str> {
    quick_xml::escape::escape(text)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::error::ErrorKind;

    #[derive(Debug, Deserialize)]
    struct List {
        #[serde(rename = "entry", default)]
        entries: Vec<String>,
    }

    #[test]
    fn a_document_is_one_element_and_nothing_behind_it() {
        let read = |text: &str| document::<List>(text.as_bytes(), "list");
        let whole =
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- a --><d:list><entry>1</entry></d:list>\n<!-- b -->\n";
        assert_eq!(read(whole).unwrap().entries, ["1"]);
        assert!(read("<list/>").unwrap().entries.is_empty());
        for broken in [
            "",
            "<html/>",
            "<list><entry>1</entry></list>Internal Server Error",
            "<list><entry>1</entry></list><list/>",
            "<list></list>&amp;",
            "<list><entry>1</entry>",
            "<list><entry>1</list>",
            "nothing",
        ] {
            assert_eq!(read(broken).unwrap_err().kind(), ErrorKind::WrongAnswer, "{broken}");
        }
    }
}
