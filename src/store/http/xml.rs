//! The XML documents of stores.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads a document whose outermost element is `root`.
///
/// # Errors
/// `WrongAnswer` if it is another document, or none: a proxy's page of HTML must not pass for an empty list.
pub(in crate::store) fn document<T: DeserializeOwned>(body: &[u8], root: &str) -> Result<T> {
    let unreadable =
        |why: String| Error::wrong_answer(format!("the store's answer is not a {root} document: {why}"));
    let text = std::str::from_utf8(body).map_err(|e| unreadable(e.to_string()))?;
    let mut reader = Reader::from_str(text);
    loop {
        match reader.read_event().map_err(|e| unreadable(e.to_string()))? {
            Event::Start(e) | Event::Empty(e) => {
                let name = e.local_name();
                if name.as_ref() == root {
                    break;
                }
                return Err(unreadable(format!("it is '{}'", name.as_ref())));
            }
            Event::Eof => return Err(unreadable("it is empty".to_owned())),
            _ => {}
        }
    }
    quick_xml::de::from_str(text).map_err(|e| unreadable(e.to_string()))
}

/// The text as the content of an element.
pub(in crate::store) fn escape(text: &str) -> std::borrow::Cow<'_, str> {
    quick_xml::escape::escape(text)
}
