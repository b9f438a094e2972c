//! A connection to an SSH server on which SFTP is spoken.

use std::sync::atomic::{AtomicBool, Ordering};

use russh::client::Handle;
use russh_sftp::client::{Config, RawSftpSession, error::Error as SftpError};
use russh_sftp::protocol::{Packet, Status, StatusCode};

use super::hosts::Hosts;
use super::login;
use super::site::SftpSite;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Site as _;
use crate::store::http::sessions::Renewable;

/// A request is given up that has no answer for so long.
const REQUEST_TIMEOUT_SECS: u64 = 30;

/// A connection.
pub(super) struct Session {
    ssh: Handle<Hosts>,
    pub(super) sftp: RawSftpSession,
    pub(super) renames_over: bool,
    pub(super) syncs: bool,
    /// A request went unanswered: who asks next makes another connection.
    broken: AtomicBool,
}

impl Renewable for Session {
    fn is_outdated(&self) -> bool {
        self.ssh.is_closed() || self.broken.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Connects, logs in and begins to speak SFTP.
    ///
    /// # Errors
    /// Those of [`login::connect`]; `Unsupported` for a server without SFTP.
    pub(super) async fn begin(site: &SftpSite) -> Result<Self> {
        let ssh = login::connect(site).await?;
        let server = site.server();
        let refused = |e: &dyn std::fmt::Display| {
            let text = format!("{server} offers no SFTP to {}: {e}; enable its sftp subsystem", site.user);
            Error::new(ErrorKind::Unsupported, text)
        };
        let channel = ssh.channel_open_session().await.map_err(|e| refused(&e))?;
        channel.request_subsystem(true, "sftp").await.map_err(|e| refused(&e))?;
        let config = Config { request_timeout_secs: REQUEST_TIMEOUT_SECS, ..Config::default() };
        let sftp = RawSftpSession::new_with_config(channel.into_stream(), config);
        let version = sftp.init().await.map_err(|e| refused(&e))?;
        let knows = |name: &str| version.extensions.contains_key(name);
        Ok(Self {
            ssh,
            renames_over: knows("posix-rename@openssh.com"),
            syncs: knows("fsync@openssh.com"),
            sftp,
            broken: AtomicBool::new(false),
        })
    }

    /// As if the server had gone: who asks next makes another connection.
    #[cfg(test)]
    pub(super) fn leave(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Renames over what is there.
    pub(super) async fn rename_over(&self, from: &str, to: &str) -> Result<(), SftpError> {
        let mut data = Vec::new();
        for path in [from, to] {
            data.extend_from_slice(&(path.len() as u32).to_be_bytes());
            data.extend_from_slice(path.as_bytes());
        }
        match self.sftp.extended("posix-rename@openssh.com", data).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(status.into()),
            _ => Err(SftpError::UnexpectedPacket),
        }
    }

    /// The error for a user who wanted to `what`.
    pub(super) fn explain(&self, e: SftpError, what: &str, site: &SftpSite) -> Error {
        let (server, url) = (site.server(), site.url());
        match &e {
            SftpError::Status(status) if code_of(&e).is_some() => refused(status, what, site),
            SftpError::Timeout => {
                self.broken.store(true, Ordering::Relaxed);
                let text = format!(
                    "{server} was silent for {REQUEST_TIMEOUT_SECS} s; check the network: cannot {what} of {url}"
                );
                Error::new(ErrorKind::Timeout, text)
            }
            _ => {
                self.broken.store(true, Ordering::Relaxed);
                tracing::debug!(error = %e, server, "a connection broke off");
                let text = format!("the connection to {server} broke off: cannot {what} of {url}");
                Error::new(ErrorKind::Unavailable, text)
            }
        }
    }
}

/// The error for a user who wanted to `what`, which the server refused.
fn refused(status: &Status, what: &str, site: &SftpSite) -> Error {
    let (server, url, user) = (site.server(), site.url(), &site.user);
    let (kind, text) = match status.status_code {
        StatusCode::NoSuchFile => {
            (ErrorKind::NotFound, format!("{server} cannot {what} of {url}: no such file or folder"))
        }
        StatusCode::PermissionDenied => (
            ErrorKind::Denied,
            format!(
                "{user} may not {what} of {url} on {server}; check the owner and the permissions of the folder"
            ),
        ),
        StatusCode::OpUnsupported => {
            (ErrorKind::Unsupported, format!("{server} does not support to {what} of {url}"))
        }
        // OpenSSH has only this answer for a full disk, a quota and a read-only file system.
        _ => (
            ErrorKind::Unavailable,
            format!(
                "{server} failed to {what} of {url} ({}); check that its disk is neither full nor read-only, and the quota \
                 of {user}",
                status.error_message.trim()
            ),
        ),
    };
    Error::new(kind, text)
}

/// What the server answered, if it did.
pub(super) fn code_of(e: &SftpError) -> Option<StatusCode> {
    match e {
        SftpError::Status(status)
            if !matches!(status.status_code, StatusCode::NoConnection | StatusCode::ConnectionLost) =>
        {
            Some(status.status_code)
        }
        _ => None,
    }
}
