//! Logging in by HTTP: Basic (RFC 7617) and Digest (RFC 7616, and RFC 2069 without `qop`).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use md5::{Digest as _, Md5};

use super::site::User;
use crate::error::{Error, ErrorKind, Result};

/// How a server wants to be told who asks.
#[derive(Debug)]
pub(super) enum Login {
    Basic,
    Digest(Challenge),
}

/// What a server's challenge says.
#[derive(Debug)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    hash: Hash,
    /// Each answer to the nonce has another number; `None` for servers that count none.
    count: Option<AtomicU32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hash {
    strong: bool,
    /// The key is made of the nonces too.
    of_session: bool,
}

impl Hash {
    fn named(name: Option<&str>) -> Option<Self> {
        let name = name.unwrap_or("MD5").to_ascii_uppercase();
        let (name, of_session) =
            name.strip_suffix("-SESS").map_or((name.as_str(), false), |name| (name, true));
        match name {
            "MD5" => Some(Self { strong: false, of_session }),
            "SHA-256" => Some(Self { strong: true, of_session }),
            _ => None,
        }
    }

    fn name(self) -> String {
        let base = if self.strong { "SHA-256" } else { "MD5" };
        format!("{base}{}", if self.of_session { "-sess" } else { "" })
    }

    fn hex(self, text: &str) -> String {
        let hash = if self.strong {
            digest(&SHA256, text.as_bytes()).as_ref().to_vec()
        } else {
            Md5::digest(text.as_bytes()).to_vec()
        };
        hash.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("BUG: writing to a string does not fail");
            hex
        })
    }
}

impl Login {
    /// The strongest way that the challenges in `headers` offer and that we know: Digest never shows the password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let offers: Vec<Offer> = texts.flat_map(offers).collect();
        let digests = offers.iter().filter_map(Offer::digest);
        if let Some(challenge) = digests.max_by_key(|challenge| challenge.hash) {
            return Some(Self::Digest(challenge));
        }
        offers.iter().any(|offer| offer.scheme == "basic").then_some(Self::Basic)
    }

    /// The value of `authorization` for a request of `method` for `path`, with its query.
    ///
    /// # Errors
    /// `Io` if the system has no random numbers.
    pub(super) fn authorization(&self, user: &User, method: &str, path: &str) -> Result<String> {
        match self {
            Self::Basic => {
                Ok(format!("Basic {}", BASE64.encode(format!("{}:{}", user.name, user.password.reveal()))))
            }
            Self::Digest(challenge) => {
                let random = getrandom::u64();
                let random =
                    random.map_err(|e| Error::new(ErrorKind::Io, format!("no random numbers: {e}")))?;
                Ok(challenge.answer(user, method, path, &format!("{random:016x}")))
            }
        }
    }
}

impl Challenge {
    fn answer(&self, user: &User, method: &str, path: &str, cnonce: &str) -> String {
        let Self { realm, nonce, hash, .. } = self;
        let (name, password) = (&user.name, user.password.reveal());
        let mut key = hash.hex(&format!("{name}:{realm}:{password}"));
        if hash.of_session {
            key = hash.hex(&format!("{key}:{nonce}:{cnonce}"));
        }
        let what = hash.hex(&format!("{method}:{path}"));
        let mut answer = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{path}\", algorithm={}",
            quoted(name),
            quoted(realm),
            quoted(nonce),
            hash.name()
        );
        let response = match &self.count {
            Some(count) => {
                let number = format!("{:08x}", count.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
                let _ = write!(answer, ", qop=auth, nc={number}, cnonce=\"{cnonce}\"");
                hash.hex(&format!("{key}:{nonce}:{number}:{cnonce}:auth:{what}"))
            }
            None => hash.hex(&format!("{key}:{nonce}:{what}")),
        };
        let _ = write!(answer, ", response=\"{response}\"");
        if let Some(opaque) = &self.opaque {
            let _ = write!(answer, ", opaque=\"{}\"", quoted(opaque));
        }
        answer
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// One of the ways that a server offers: its scheme, in lower case, and its parameters.
#[derive(Debug, Default)]
struct Offer {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Offer {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn digest(&self) -> Option<Challenge> {
        let hash = Hash::named(self.get("algorithm")).filter(|_| self.scheme == "digest")?;
        let count = match self.get("qop") {
            None => None,
            Some(qop) if qop.split(',').any(|q| q.trim() == "auth") => Some(AtomicU32::new(0)),
            Some(_) => return None,
        };
        Some(Challenge {
            realm: self.get("realm")?.to_owned(),
            nonce: self.get("nonce")?.to_owned(),
            opaque: self.get("opaque").map(str::to_owned),
            hash,
            count,
        })
    }
}

/// The offers in one header: `Scheme name=value, name="value", Scheme …`.
fn offers(text: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    for piece in pieces(text) {
        let (head, value) = match piece.split_once('=') {
            Some((head, value)) => (head.trim(), Some(value.trim())),
            None => (piece.trim(), None),
        };
        // The first parameter of an offer follows its scheme: `Digest realm="…"`.
        let (scheme, name) = match (head.rsplit_once(char::is_whitespace), value) {
            (Some((scheme, name)), Some(_)) => (Some(scheme), name),
            (_, None) => (Some(head), ""),
            (None, Some(_)) => (None, head),
        };
        if let Some(scheme) = scheme {
            offers.push(Offer { scheme: scheme.trim().to_ascii_lowercase(), parameters: Vec::new() });
        }
        if let (Some(offer), Some(value)) = (offers.last_mut(), value) {
            offer.parameters.push((name.to_ascii_lowercase(), unquoted(value)));
        }
    }
    offers
}

/// The text between commas that are not in quotes.
fn pieces(text: &str) -> Vec<String> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let (mut in_quotes, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => {
                pieces.push(std::mem::take(&mut piece));
                continue;
            }
            _ => {}
        }
        piece.push(c);
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.trim().is_empty());
    pieces
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut escaped = false;
    let keep = |c: &char| {
        let is_escape = *c == '\\' && !escaped;
        escaped = is_escape;
        !is_escape
    };
    inner.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::store::Secret;

    fn login(challenges: &[&str]) -> Option<Login> {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap());
        }
        Login::of(&headers)
    }

    fn digest_of(challenge: &str) -> Challenge {
        match login(&[challenge]) {
            Some(Login::Digest(challenge)) => challenge,
            other => panic!("{other:?}"),
        }
    }

    fn user(name: &str, password: &str) -> User {
        User { name: name.to_owned(), password: Secret::new(password) }
    }

    /// The examples of RFC 7616, section 3.9.1, and of RFC 2617, section 3.5.
    #[test]
    fn answers_are_those_of_the_standard() {
        let given = "realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
                     nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                     opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let mufasa = user("Mufasa", "Circle of Life");
        for (algorithm, expected) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let challenge = digest_of(&format!("Digest {given}, algorithm={algorithm}"));
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let answer = challenge.answer(&mufasa, "GET", "/dir/index.html", cnonce);
            assert!(answer.contains(&format!("response=\"{expected}\"")), "{answer}");
            assert!(answer.contains("nc=00000001") && answer.contains("opaque=\"FQhe"), "{answer}");
            assert!(challenge.answer(&mufasa, "GET", "/", cnonce).contains("nc=00000002"));
        }
        let old =
            digest_of("Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"");
        let answer = old.answer(&user("Mufasa", "CircleOfLife"), "GET", "/dir/index.html", "x");
        assert!(answer.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{answer}");
    }

    #[test]
    fn the_strongest_offer_that_we_know_is_taken() {
        assert!(matches!(login(&["Basic realm=\"a, b\""]), Some(Login::Basic)));
        assert!(matches!(login(&["Negotiate", "basic"]), Some(Login::Basic)));
        assert!(login(&["Negotiate"]).is_none() && login(&[]).is_none());
        let both = "Basic realm=\"x\", Digest realm=\"y\", nonce=\"n\", algorithm=MD5, Digest realm=\"z\", nonce=\"m\", \
                    algorithm=SHA-256";
        assert_eq!(digest_of(both).realm, "z");
        assert!(matches!(
            login(&["Digest realm=\"y\", nonce=\"n\", algorithm=SHA-512-256", "Basic realm=\"x\""]),
            Some(Login::Basic)
        ));
        assert_eq!(digest_of(r#"Digest realm="a \"b\", c", nonce=n"#).realm, "a \"b\", c");
    }
}
