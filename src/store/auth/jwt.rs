//! JSON Web Tokens that are signed with a private key of our own (RFC 7519).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::store::Secret;

/// A private RSA key.
pub(in crate::store) struct SigningKey(RsaKeyPair);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// The first private key in a PEM file, as PKCS #8 or PKCS #1.
    ///
    /// # Errors
    /// `Config` if there is none, it is encrypted, or it is no RSA key. No byte of it is repeated.
    pub(in crate::store) fn from_pem(pem: &str) -> Result<Self> {
        let refused = |_| Error::config("its private key is not an RSA key of 2048 to 8192 bits");
        if let Some(der) = block(pem, "PRIVATE KEY") {
            return RsaKeyPair::from_pkcs8(&der).map(Self).map_err(refused);
        }
        if let Some(der) = block(pem, "RSA PRIVATE KEY") {
            return RsaKeyPair::from_der(&der).map(Self).map_err(refused);
        }
        Err(Error::config(if pem.contains("ENCRYPTED") {
            "its private key is encrypted; write it without a password (openssl pkcs8 -topk8 -nocrypt)"
        } else {
            "it holds no private key (-----BEGIN PRIVATE KEY-----)"
        }))
    }

    /// A token with this header and these claims, signed by RS256.
    ///
    /// # Errors
    /// `Unsupported` if the key cannot sign.
    pub(in crate::store) fn sign(&self, header: &Value, claims: &Value) -> Result<Secret> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| Error::new(ErrorKind::Unsupported, "the private key cannot sign"))?;
        Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }

    /// The public key, to check signatures with.
    #[cfg(test)]
    pub(in crate::store) fn public_key(&self) -> Vec<u8> {
        aws_lc_rs::signature::KeyPair::public_key(&self.0).as_ref().to_vec()
    }
}

/// The first certificate in a PEM file.
///
/// # Errors
/// `Config` if there is none.
pub(in crate::store) fn certificate(pem: &str) -> Result<Vec<u8>> {
    block(pem, "CERTIFICATE")
        .ok_or_else(|| Error::config("it holds no certificate (-----BEGIN CERTIFICATE-----)"))
}

/// The content of the first PEM block that is labelled `label`.
fn block(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::json;

    use super::*;

    /// A new private key in PEM.
    pub(in crate::store) fn new_key() -> String {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    }

    /// Header and claims of a token, whose signature must be that of `pem`'s key.
    pub(in crate::store) fn read(token: &str, pem: &str) -> (Value, Value) {
        let (text, signature) = token.rsplit_once('.').unwrap();
        let key = UnparsedPublicKey::new(
            &RSA_PKCS1_2048_8192_SHA256,
            SigningKey::from_pem(pem).unwrap().public_key(),
        );
        key.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let decode = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let (header, claims) = text.split_once('.').unwrap();
        (decode(header), decode(claims))
    }

    #[test]
    fn a_token_has_what_was_signed() {
        let pem = new_key();
        let key = SigningKey::from_pem(&pem).unwrap();
        let (header, claims) = (json!({"alg": "RS256"}), json!({"iss": "me", "exp": 12}));
        let token = key.sign(&header, &claims).unwrap();
        assert_eq!(read(token.reveal(), &pem), (header, claims));
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let broken = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----";
        let locked =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----";
        for pem in ["", "aHVudGVyMg==", broken, locked] {
            let e = SigningKey::from_pem(pem).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(!e.to_string().contains("aHVudGVyMg"), "{e}");
        }
    }
}
