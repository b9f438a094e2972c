//! A server that does what the documentation of Google Cloud Storage says, in memory. An emulator ignores the condition
//! of resumable uploads, and ends one whose state is asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::clock::{Clock as _, SystemClock};
use crate::store::tests::recorder::{Answer, Recorder, Seen, silence, status};

const PAGE: usize = 1000;
const UNIT: usize = 256 << 10;

#[derive(Clone)]
struct Object {
    body: Vec<u8>,
    metadata: Value,
    created: String,
}

struct Upload {
    description: Value,
    if_absent: bool,
    bytes: Vec<u8>,
    /// The answer to the request that ended it, and to all that come later.
    end: Option<Answer>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    next: usize,
}

/// What happens to a request beside what it asks for.
pub(in crate::store) enum Fault {
    None,
    /// This is answered, and nothing done.
    Instead(Answer),
    /// It is done, and the answer is lost.
    Lose,
    /// Only this number of bytes of the body comes.
    Cut(usize),
}

/// The service, with the bucket `bucket`.
pub(in crate::store) struct GcsServer {
    pub(in crate::store) recorder: Recorder,
    state: Arc<Mutex<State>>,
}

impl GcsServer {
    pub(in crate::store) fn start() -> Self {
        Self::with_faults(|_| Fault::None)
    }

    pub(in crate::store) fn with_faults(fault: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let service = Arc::clone(&state);
        let recorder = Recorder::start(move |seen| match fault(seen) {
            Fault::None => service.lock().unwrap().answer(seen),
            Fault::Instead(answer) => answer,
            Fault::Lose => {
                service.lock().unwrap().answer(seen);
                silence()
            }
            Fault::Cut(len) => {
                let body = seen.body[..len].to_vec();
                service.lock().unwrap().answer(&Seen { body, ..seen.clone() });
                silence()
            }
        });
        Self { recorder, state }
    }

    /// Names of objects, and whether uploads are under way.
    pub(in crate::store) fn objects(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(in crate::store) fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.values().filter(|upload| upload.end.is_none()).count()
    }

    pub(in crate::store) fn content(&self, key: &str) -> Vec<u8> {
        self.state.lock().unwrap().objects[key].body.clone()
    }

    pub(in crate::store) fn metadata(&self, key: &str) -> Value {
        self.state.lock().unwrap().objects[key].metadata.clone()
    }
}

/// A refusal in the service's words.
pub(in crate::store) fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let document = json!({"error": {"code": code, "message": message, "errors": [
        {"message": message, "domain": "global", "reason": reason},
    ]}});
    status(code).header("Content-Type", "application/json; charset=UTF-8").body(document.to_string())
}

fn precondition_failed() -> Answer {
    refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
}

fn document(value: &Value) -> Answer {
    status(200).header("Content-Type", "application/json; charset=UTF-8").body(value.to_string())
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Answer {
        // Objects' names are encoded with their slashes.
        let path = seen.path.split('?').next().unwrap_or_default();
        if path == "/batch/storage/v1" {
            return self.batch(seen);
        }
        if let Some(rest) = path.strip_prefix("/upload/storage/v1/b/bucket/o") {
            assert_eq!(rest, "");
            return self.upload(seen);
        }
        let Some(rest) = path.strip_prefix("/storage/v1/b/bucket/o") else {
            return refusal(404, "notFound", "The specified bucket does not exist.");
        };
        let Some(key) = rest.strip_prefix('/') else { return self.list(seen) };
        let key = percent_encoding::percent_decode_str(key).decode_utf8().unwrap().into_owned();
        match (seen.method.as_str(), seen.query("alt").as_deref()) {
            ("GET", Some("media")) => self.media(&key, seen),
            ("GET", None) => match self.objects.get(&key) {
                Some(object) => document(&described(&key, object)),
                None => missing(&key),
            },
            ("DELETE", None) => self.delete(&key),
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, key: &str) -> Answer {
        if self.objects.remove(key).is_some() { status(204) } else { missing(key) }
    }

    fn list(&self, seen: &Seen) -> Answer {
        let prefix = seen.query("prefix").unwrap_or_default();
        let start = seen.query("startOffset").unwrap_or_default();
        let token = seen.query("pageToken").unwrap_or_default();
        let mut found = self
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix) && **name >= start && **name > token);
        let items: Vec<Value> =
            found.by_ref().take(PAGE).map(|(key, object)| described(key, object)).collect();
        let mut page = json!({"kind": "storage#objects"});
        if found.next().is_some() {
            page["nextPageToken"] = items[PAGE - 1]["name"].clone();
        }
        if !items.is_empty() {
            page["items"] = items.into();
        }
        document(&page)
    }

    fn media(&self, key: &str, seen: &Seen) -> Answer {
        let Some(object) = self.objects.get(key) else {
            return status(404)
                .header("Content-Type", "text/html; charset=UTF-8")
                .body(format!("No such object: bucket/{key}"));
        };
        let size = object.body.len();
        let Some(range) = seen.header("range").strip_prefix("bytes=") else {
            return status(200).body(object.body.clone());
        };
        let (first, last) = range.split_once('-').unwrap();
        let bounds = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
            (Err(_), Ok(last)) => (size.saturating_sub(last), size),
            other => panic!("{other:?}"),
        };
        if bounds.0 >= size {
            return status(416).header("Content-Range", format!("bytes */{size}"));
        }
        status(206)
            .header("Content-Range", format!("bytes {}-{}/{size}", bounds.0, bounds.1 - 1))
            .body(object.body[bounds.0..bounds.1].to_vec())
    }

    fn store(&mut self, description: &Value, body: Vec<u8>, if_absent: bool) -> Answer {
        let key = description["name"].as_str().unwrap().to_owned();
        if if_absent && self.objects.contains_key(&key) {
            return precondition_failed();
        }
        let created = SystemClock.now().to_string();
        let object = Object { body, metadata: description["metadata"].clone(), created };
        let answer = document(&described(&key, &object));
        self.objects.insert(key, object);
        answer
    }

    fn upload(&mut self, seen: &Seen) -> Answer {
        let if_absent = seen.query("ifGenerationMatch").is_some_and(|generation| generation == "0");
        match (seen.method.as_str(), seen.query("uploadType").as_deref(), seen.query("upload_id")) {
            ("POST", Some("multipart"), None) => self.upload_of_both(seen, if_absent),
            ("POST", Some("resumable"), None) => {
                let description: Value = serde_json::from_slice(&seen.body).unwrap();
                if if_absent && self.objects.contains_key(description["name"].as_str().unwrap()) {
                    return precondition_failed();
                }
                self.next += 1;
                let name = format!("upload {}", self.next);
                let place =
                    "https://storage.googleapis.com/upload/storage/v1/b/bucket/o?uploadType=resumable";
                let place = format!("{place}&upload_id={}", name.replace(' ', "%20"));
                self.uploads.insert(name, Upload { description, if_absent, bytes: Vec::new(), end: None });
                status(200).header("Location", place)
            }
            ("PUT", _, Some(name)) => self.resume(&name, seen),
            ("DELETE", _, Some(name)) => {
                self.uploads.remove(&name);
                status(499)
            }
            other => panic!("{other:?}"),
        }
    }

    fn upload_of_both(&mut self, seen: &Seen, if_absent: bool) -> Answer {
        let (_, boundary) = seen.header("content-type").split_once("boundary=").unwrap();
        let find = |text: &[u8], from: usize| {
            (from..=seen.body.len() - text.len()).find(|at| seen.body[*at..].starts_with(text)).unwrap()
        };
        let head = find(b"\r\n\r\n", 0) + 4;
        let head_end = find(format!("\r\n--{boundary}").as_bytes(), head);
        let body = find(b"\r\n\r\n", head_end) + 4;
        let end = format!("\r\n--{boundary}--\r\n");
        assert!(seen.body.ends_with(end.as_bytes()));
        let description: Value = serde_json::from_slice(&seen.body[head..head_end]).unwrap();
        self.store(&description, seen.body[body..seen.body.len() - end.len()].to_vec(), if_absent)
    }

    /// The next bytes of an upload, or a question how many it has.
    fn resume(&mut self, name: &str, seen: &Seen) -> Answer {
        let Some(upload) = self.uploads.get_mut(name) else { return refusal(410, "gone", "Gone") };
        if let Some(answer) = &upload.end {
            return answer.clone();
        }
        let (range, total) =
            seen.header("content-range").strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        if let Some((first, last)) = range.split_once('-') {
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(first <= upload.bytes.len() && last >= first);
            assert!(
                total != "*" || (last + 1).is_multiple_of(UNIT),
                "a part that is not the last has a size"
            );
            // What it has already is ignored.
            let skip = (upload.bytes.len() - first).min(seen.body.len());
            upload.bytes.extend_from_slice(&seen.body[skip..]);
            // What does not fill a unit is not kept.
            let whole = upload.bytes.len() / UNIT * UNIT;
            if total == "*" || upload.bytes.len() < total.parse().unwrap() {
                upload.bytes.truncate(whole);
            }
        }
        if total != "*" && upload.bytes.len() == total.parse::<usize>().unwrap() {
            let (bytes, description) = (std::mem::take(&mut upload.bytes), upload.description.clone());
            let if_absent = upload.if_absent;
            let answer = self.store(&description, bytes, if_absent);
            self.uploads.get_mut(name).unwrap().end = Some(answer.clone());
            return answer;
        }
        match upload.bytes.len() {
            0 => status(308),
            n => status(308).header("Range", format!("bytes=0-{}", n - 1)),
        }
    }

    fn batch(&mut self, seen: &Seen) -> Answer {
        let mut body = String::new();
        for (n, line) in seen.text().lines().filter(|line| line.starts_with("DELETE ")).enumerate() {
            let path = line.split(' ').nth(1).unwrap().to_owned();
            let answer = self.answer(&Seen { method: "DELETE".into(), path, ..Seen::default() });
            let code = answer.status;
            let words =
                if code == 204 { String::new() } else { json!({"error": {"code": code}}).to_string() };
            body += &format!(
                "--batch_x\r\nContent-Type: application/http\r\nContent-ID: <response-{n}>\r\n\r\n\
                 HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{words}\r\n",
                words.len()
            );
        }
        status(200).header("Content-Type", "multipart/mixed; boundary=batch_x").body(body + "--batch_x--\r\n")
    }
}

fn described(key: &str, object: &Object) -> Value {
    json!({
        "name": key, "size": object.body.len().to_string(), "timeCreated": object.created, "metadata": object.metadata,
    })
}

fn missing(key: &str) -> Answer {
    refusal(404, "notFound", &format!("No such object: bucket/{key}"))
}
