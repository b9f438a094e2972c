//! Connecting to an SSH server and logging in.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{self, PrivateKeyWithHashAlg};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hosts::{Hosts, Left};
use super::site::SftpSite;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::store::setting::Secret;

/// To resolve and connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// To agree on keys and to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that nobody uses is closed after this.
const UNUSED: Duration = Duration::from_secs(60);

/// Connects and logs in.
///
/// # Errors
/// `Unavailable`, `Timeout`, `Denied`, `Config`: each names the server.
pub(super) async fn connect(site: &SftpSite) -> Result<Handle<Hosts>> {
    let (server, host, port) = (site.server(), site.host.clone(), site.port);
    let found = runtime::blocking(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        found.map(Iterator::collect::<Vec<_>>).map_err(|e| Error::new(ErrorKind::Unavailable, e.to_string()))
    });
    let connected = timeout(CONNECT_TIMEOUT, async {
        let found = found.await.map_err(|e| e.context(format_args!("cannot find {server}")))?;
        TcpStream::connect(&found[..]).await.map_err(|e| {
            let text = format!("cannot connect to {server}: {e}; check the address and the network");
            Error::new(ErrorKind::Unavailable, text)
        })
    });
    let stream = connected.await.map_err(|_| too_slow(&server, "connect to", CONNECT_TIMEOUT))??;
    let _ = stream.set_nodelay(true);
    let logged_in = async {
        let hosts = known(site).await?;
        let handle = client::connect_stream(Arc::new(config(&hosts)), stream, hosts).await;
        let mut handle = handle.map_err(|left| explain(left, &server))?;
        log_in(&mut handle, site).await?;
        Ok(handle)
    };
    timeout(LOGIN_TIMEOUT, logged_in).await.map_err(|_| too_slow(&server, "log in to", LOGIN_TIMEOUT))?
}

async fn known(site: &SftpSite) -> Result<Hosts> {
    let site = site.clone();
    runtime::blocking(move || Ok(Hosts::of(&site))).await
}

fn config(hosts: &Hosts) -> client::Config {
    let mut config =
        client::Config { inactivity_timeout: Some(UNUSED), nodelay: true, ..client::Config::default() };
    config.preferred.key = hosts.preferred(&config.preferred.key).into();
    config
}

fn too_slow(server: &str, what: &str, limit: Duration) -> Error {
    let text =
        format!("cannot {what} {server} within {} s; check the address and the network", limit.as_secs());
    Error::new(ErrorKind::Timeout, text)
}

fn explain(left: Left, server: &str) -> Error {
    match left {
        Left::Stranger(e) => e,
        Left::Ssh(e) => Error::new(ErrorKind::Unavailable, format!("the connection to {server} failed: {e}")),
    }
}

/// Logs in by what is given, a key before a password; without either by the keys of the agent.
async fn log_in(handle: &mut Handle<Hosts>, site: &SftpSite) -> Result<()> {
    let (mut tried, mut remedy) = (Vec::new(), String::new());
    if let Some(path) = &site.key_path {
        if by_key(handle, site, path).await? {
            return Ok(());
        }
        tried.push(format!("the key in '{}'", path.display()));
        remedy.push_str("key-path and ");
    }
    if let Some(password) = &site.password {
        if by_password(handle, site, password).await? {
            return Ok(());
        }
        tried.push("the password".to_owned());
        remedy.push_str("password and ");
    }
    if tried.is_empty() {
        if by_agent(handle, site).await? {
            return Ok(());
        }
        tried.push("any key of the SSH agent; give key-path or password".to_owned());
    }
    let (server, user, tried) = (site.server(), &site.user, tried.join(" nor with "));
    let text = format!("{server} does not let '{user}' in with {tried}; check {remedy}user");
    Err(Error::new(ErrorKind::Denied, text))
}

async fn by_key(handle: &mut Handle<Hosts>, site: &SftpSite, path: &Path) -> Result<bool> {
    let failed = |e: russh::Error| explain(Left::Ssh(e), &site.server());
    let key = private_key(site, path.to_owned()).await?;
    let hash = handle.best_supported_rsa_hash().await.map_err(failed)?.flatten();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
    let answer = handle.authenticate_publickey(site.user.clone(), key).await.map_err(failed)?;
    Ok(answer.success())
}

async fn by_password(handle: &mut Handle<Hosts>, site: &SftpSite, password: &Secret) -> Result<bool> {
    let failed = |e: russh::Error| explain(Left::Ssh(e), &site.server());
    let answer = handle.authenticate_password(site.user.clone(), password.reveal()).await.map_err(failed)?;
    if answer.success() { Ok(true) } else { ask_password(handle, site, password).await.map_err(failed) }
}

/// The password as an answer to the server's question.
async fn ask_password(
    handle: &mut Handle<Hosts>,
    site: &SftpSite,
    password: &Secret,
) -> Result<bool, russh::Error> {
    let mut answer = handle.authenticate_keyboard_interactive_start(site.user.clone(), None).await?;
    for _ in 0..3 {
        match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.reveal().to_owned()).collect();
                answer = handle.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(false)
}

async fn private_key(site: &SftpSite, path: PathBuf) -> Result<keys::PrivateKey> {
    let passphrase = site.key_passphrase.clone();
    runtime::blocking(move || {
        let passphrase = passphrase.as_ref().map(|passphrase| passphrase.reveal());
        let shown = path.display();
        let text = std::fs::read_to_string(&path);
        let text = text
            .map_err(|e| Error::config(format!("cannot read the key in '{shown}': {e}; check key-path")))?;
        keys::decode_secret_key(&text, passphrase).map_err(|e| {
            Error::config(match (e, passphrase) {
                (keys::Error::KeyIsEncrypted, _) => {
                    format!("the key in '{shown}' is encrypted; set key-passphrase")
                }
                (e, Some(_)) => {
                    format!("cannot use the key in '{shown}' with key-passphrase: {e}; check both")
                }
                (e, None) => {
                    format!("cannot use the key in '{shown}': {e}; key-path must name a private key")
                }
            })
        })
    })
    .await
}

async fn by_agent(handle: &mut Handle<Hosts>, site: &SftpSite) -> Result<bool> {
    let server = site.server();
    let denied = |why: String| Error::new(ErrorKind::Denied, why);
    let nothing = |why: &dyn std::fmt::Display| {
        denied(format!(
            "nothing to log in to {server} with: no key-path, no password, and no SSH agent ({why})"
        ))
    };
    let mut agent = AgentClient::connect_env().await.map_err(|e| nothing(&e))?;
    let identities = agent.request_identities().await.map_err(|e| nothing(&e))?;
    let hash = handle.best_supported_rsa_hash().await.ok().flatten().flatten();
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = if key.algorithm().is_rsa() { hash } else { None };
        match handle.authenticate_publickey_with(site.user.clone(), key, hash, &mut agent).await {
            Ok(answer) if answer.success() => return Ok(true),
            Ok(_) => {}
            Err(e) => tracing::debug!(error = %e, "a key of the SSH agent cannot be used"),
        }
    }
    Ok(false)
}
