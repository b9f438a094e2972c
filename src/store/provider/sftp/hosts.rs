//! Whether an SSH server is the right one: by the key that it shows.

use std::path::PathBuf;

use russh::client;
use russh::keys::ssh_key::HashAlg;
use russh::keys::{self, PublicKey, PublicKeyOrCertificate};

use super::site::SftpSite;
use crate::error::{Error, ErrorKind, Result};

/// The files in which OpenSSH keeps the keys of servers: the user's, and the machine's.
const KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"];

/// A key that the server may show.
struct Known {
    key: PublicKey,
    /// What says so, for messages.
    place: String,
}

/// What is known of a server's keys.
pub(super) struct Hosts {
    server: String,
    known: Vec<Known>,
    /// The setting `host-key` was given: no other key will do, of whatever kind.
    is_set: bool,
    skip_verify: bool,
}

/// Why a server was left.
#[derive(Debug)]
pub(super) enum Left {
    Ssh(russh::Error),
    /// It is not who it should be.
    Stranger(Error),
}

impl From<russh::Error> for Left {
    fn from(e: russh::Error) -> Self {
        Self::Ssh(e)
    }
}

impl Hosts {
    /// Reads the files of known hosts. Blocks.
    pub(super) fn of(site: &SftpSite) -> Self {
        let known = match &site.host_key {
            Some(key) => vec![Known { key: key.clone(), place: "the setting host-key".to_owned() }],
            None => KNOWN_HOSTS.iter().flat_map(|file| in_file(site, file)).collect(),
        };
        let (server, is_set) = (site.server(), site.host_key.is_some());
        Self { server, known, is_set, skip_verify: site.skip_verify }
    }

    /// The kinds of keys in the order in which the server is asked for them: it may have several keys, of which one is known.
    pub(super) fn preferred(&self, all: &[keys::Algorithm]) -> Vec<keys::Algorithm> {
        let is_known = |algorithm: &keys::Algorithm| {
            let fits = |known: &Known| is_of_one_kind(&known.key.algorithm(), algorithm);
            self.known.iter().any(fits)
        };
        let (first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_known);
        first.into_iter().chain(rest).collect()
    }

    /// # Errors
    /// `Config` for a key of a server of which none is known, with what to write if it is right; `Denied` for another key than
    /// the one that is known.
    fn verify(&self, shown: &PublicKey) -> Result<()> {
        if self.skip_verify || self.known.iter().any(|known| known.key.key_data() == shown.key_data()) {
            return Ok(());
        }
        let (server, fingerprint) = (&self.server, shown.fingerprint(HashAlg::Sha256));
        let other =
            |known: &&Known| self.is_set || is_of_one_kind(&known.key.algorithm(), &shown.algorithm());
        if let Some(Known { key, place }) = self.known.iter().find(other) {
            let expected = key.fingerprint(HashAlg::Sha256);
            let text = format!(
                "{server} shows the key {fingerprint} ({}), and {place} has {expected} ({}): somebody may be in between; if \
                 the server has a new key, correct that",
                shown.algorithm(),
                key.algorithm()
            );
            return Err(Error::new(ErrorKind::Denied, text));
        }
        Err(Error::config(format!(
            "the key of {server} is not known: it shows {fingerprint}; if that is right, set host-key to '{}', or add it \
             to {}",
            line_of(shown),
            KNOWN_HOSTS[0]
        )))
    }
}

impl client::Handler for Hosts {
    type Error = Left;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Left> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            let text = format!(
                "{} shows a certificate, which is not understood; give its key as host-key",
                self.server
            );
            return Err(Left::Stranger(Error::config(text)));
        };
        self.verify(key).map(|()| true).map_err(Left::Stranger)
    }
}

/// The keys that `file` has of the server. A line that cannot be read is as good as none.
fn in_file(site: &SftpSite, file: &str) -> Vec<Known> {
    let path = match (file.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) => return Vec::new(),
        (None, _) => PathBuf::from(file),
    };
    let found = keys::known_hosts::known_host_keys_path(&site.host, site.port, path);
    let known = |(line, key)| Known { key, place: format!("line {line} of {file}") };
    found.map(|keys| keys.into_iter().map(known).collect()).unwrap_or_default()
}

/// Whether a server that has a key of the one has no other of the other. Keys of RSA sign by several algorithms.
fn is_of_one_kind(a: &keys::Algorithm, b: &keys::Algorithm) -> bool {
    let is_rsa = |algorithm: &keys::Algorithm| matches!(algorithm, keys::Algorithm::Rsa { .. });
    a == b || (is_rsa(a) && is_rsa(b))
}

/// A key as the setting `host-key` takes it.
fn line_of(key: &PublicKey) -> String {
    let line = key.to_openssh().unwrap_or_default();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Location;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(line: &str) -> PublicKey {
        PublicKey::from_openssh(line).unwrap()
    }

    fn hosts(query: &str) -> Hosts {
        let url = format!("sftp://me@host.of.nobody:2222/app{query}");
        let location = Location::parse(&url, &|_: &str| None).unwrap();
        Hosts::of(location.site().as_any().downcast_ref::<SftpSite>().unwrap())
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_with_what_to_write() {
        let e = hosts("").verify(&key(&format!("{A} comment"))).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        for words in ["host.of.nobody:2222", "SHA256:", &format!("host-key to '{A}'"), "known_hosts"] {
            assert!(e.to_string().contains(words), "{e}");
        }
        hosts("?skip-verify=true").verify(&key(A)).unwrap();
    }

    #[test]
    fn another_key_than_the_known_one_is_a_stranger() {
        let hosts = hosts(&format!("?host-key={}", A.replace(' ', "%20").replace('+', "%2B")));
        hosts.verify(&key(A)).unwrap();
        let e = hosts.verify(&key(B)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
        assert!(
            e.to_string().contains("the setting host-key") && e.to_string().contains("in between"),
            "{e}"
        );
        // One of several keys that a file has.
        let known = |line: &str| Known { key: key(line), place: "line 1 of a file".to_owned() };
        let both = Hosts { known: vec![known(B), known(A)], is_set: false, ..hosts };
        both.verify(&key(A)).unwrap();
    }

    #[test]
    fn the_server_is_asked_for_a_key_that_is_known() {
        let (rsa, ed) = (keys::Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, keys::Algorithm::Ed25519);
        let hosts = hosts(&format!("?host-key={}", A.replace(' ', "%20")));
        assert_eq!(hosts.preferred(&[rsa.clone(), ed.clone()]), [ed, rsa]);
    }
}
