//! What the files of a replica are opened with, whether they must be sealed, and whom a primary seals them to.

use super::catalog::{
    AGE_IDENTITY, AGE_IDENTITY_FILE, AGE_RECIPIENT, AGE_RECIPIENTS_FILE, PLAIN_UNTIL, REQUIRE_ENCRYPTION,
};
use super::layer::{Found, Given};
use super::origin::Origin;
use super::setting::{CountedTxid, Declared};
use super::value;
use crate::error::{Error, Result};
use crate::ltx::{Identities, Keyring, Plain, Recipients};
use zeroize::Zeroizing;

/// What a replica is read with, for which `given` holds. A file of identities is read now.
///
/// # Errors
/// `Config` if an identity is malformed or given twice, or settings contradict each other; those of reading the file.
pub(super) fn keyring(given: &Given<'_>) -> Result<Keyring> {
    let identities = identities(given)?;
    let is_expected = !identities.is_empty() || named_recipients(given).is_some();
    let required = given.get(&REQUIRE_ENCRYPTION)?;
    let plain = match (required, given.get(&PLAIN_UNTIL)?) {
        (Some(false), Some(_)) => {
            return Err(Error::config(
                "plain_until admits some files that are not sealed, and require_encryption=0 all of them: keep one",
            ));
        }
        (Some(false), None) => Plain::Any,
        (_, Some(CountedTxid(last))) => Plain::UpTo(last),
        (Some(true), None) => Plain::None,
        (None, None) if is_expected => Plain::None,
        (None, None) => Plain::Any,
    };
    Ok(Keyring::new(identities, plain))
}

/// Whom a primary, for which `given` holds, seals its files to; nobody if nothing asks for encryption. A file of recipients
/// is read now.
///
/// # Errors
/// `Config` if a recipient is refused, there is none where some were asked for, or other settings ask for encryption
/// without any; those of reading the file.
pub(super) fn recipients(given: &Given<'_>, keyring: &Keyring) -> Result<Recipients> {
    let settings = [&AGE_RECIPIENT.declared, &AGE_RECIPIENTS_FILE.declared];
    let Some(found) = named_recipients(given) else {
        return refuse_without_recipients(given, keyring).map(|()| Recipients::default());
    };
    let named = |e: Error| e.context(found.origin.label());
    let layer = |setting| given.first_of(&[setting]).map(|(_, found)| std::mem::discriminant(&found.origin));
    if layer(settings[0]).is_some() && layer(settings[0]) == layer(settings[1]) {
        return Err(Error::config("'age_recipient' and 'age_recipients_file' are both given; keep one"));
    }
    let is_file = given
        .first_of(&settings)
        .is_some_and(|(setting, _)| setting.name == AGE_RECIPIENTS_FILE.declared.name);
    if !is_file {
        return Recipients::parse(&given.all_of(&AGE_RECIPIENT.declared).join("\n")).map_err(named);
    }
    let path = value::path(&found.text).map_err(named)?;
    let text = std::fs::read_to_string(&path)
        .map_err(|e| named(Error::io(format!("cannot read {}", path.display()), e)))?;
    Recipients::parse(&text).map_err(|e| named(e.context(path.display())))
}

/// Refuses a primary that is to take sealed files alone, and does not know whom to seal them to.
fn refuse_without_recipients(given: &Given<'_>, keyring: &Keyring) -> Result<()> {
    if keyring.plain() == Plain::Any {
        return Ok(());
    }
    let settings: [&Declared; 4] = [
        &AGE_IDENTITY.declared,
        &AGE_IDENTITY_FILE.declared,
        &PLAIN_UNTIL.declared,
        &REQUIRE_ENCRYPTION.declared,
    ];
    let found = given
        .first_of(&settings)
        .map_or(REQUIRE_ENCRYPTION.declared.name.to_owned(), |(_, found)| found.origin.label());
    Err(Error::config(format!(
        "{found} asks for encryption, and nothing says who may open what is published: set age_recipient (or \
         age_recipients_file), or add require_encryption=0 to publish unencrypted"
    )))
}

/// Who files are to be sealed to, if anybody said so.
fn named_recipients(given: &Given<'_>) -> Option<Found> {
    let settings = [&AGE_RECIPIENT.declared, &AGE_RECIPIENTS_FILE.declared];
    given.first_of(&settings).map(|(_, found)| found).or_else(|| given.empty_variable(&settings))
}

fn identities(given: &Given<'_>) -> Result<Identities> {
    let settings = [&AGE_IDENTITY.declared, &AGE_IDENTITY_FILE.declared];
    let Some((setting, found)) = given.first_of(&settings) else { return Ok(Identities::default()) };
    let named = |e: Error| e.context(found.origin.label());
    if given.is_twice(&settings) {
        return Err(Error::config("'age_identity' and 'age_identity_file' are both given; keep one"));
    }
    if setting.name == AGE_IDENTITY.declared.name {
        if matches!(found.origin, Origin::Uri(_) | Origin::Url(_)) {
            tracing::warn!(
                "age_identity is a secret in a URI, which other programs may log: give age_identity_file instead"
            );
        }
        return Identities::parse(&found.text).map_err(named);
    }
    let path = value::path(&found.text).map_err(named)?;
    let text = std::fs::read_to_string(&path)
        .map_err(|e| named(Error::io(format!("cannot read {}", path.display()), e)))?;
    let text = Zeroizing::new(text);
    Identities::parse(&text).map_err(|e| named(e.context(path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting::Scope;
    use crate::config::tests::params;
    use crate::config::{Config, Env, resolve};
    use crate::error::ErrorKind;
    use crate::ltx::Txid;
    use std::path::Path;

    const IDENTITY: &str = "AGE-SECRET-KEY-1W6ZNEUE7YDWYY9P6KSUP7RE4JWT6CLX6R5P4C5KNFKR5JS2S606SEPEUP8";
    const HEX: &str = "76853cf33e235c42143ab4381f0f359397ac7cda1d035c52d34d87494150d3f5";

    fn read(query: &str, env: &dyn Env) -> Result<Keyring> {
        keyring(&Given::uri(&params(query), env, &[Scope::Seal]).unwrap())
    }

    #[test]
    fn whoever_has_an_identity_takes_no_plain_files_unless_told() {
        let txid = Txid::new(2).unwrap();
        for (query, identities, plain) in [
            (String::new(), 0, Plain::Any),
            (format!("age_identity={IDENTITY}"), 1, Plain::None),
            (format!("age_identity={IDENTITY}&require_encryption=0"), 1, Plain::Any),
            (format!("age_identity={IDENTITY}&plain_until=2"), 1, Plain::UpTo(txid)),
            (format!("age_identity={IDENTITY}&plain_until=2&require_encryption=1"), 1, Plain::UpTo(txid)),
            ("age_recipient=age1x".to_owned(), 0, Plain::None),
            ("require_encryption=1".to_owned(), 0, Plain::None),
            ("plain_until=2".to_owned(), 0, Plain::UpTo(txid)),
            ("plain_until=0000000000000002".to_owned(), 0, Plain::UpTo(txid)),
        ] {
            let keyring = read(&query, &[]).unwrap();
            assert_eq!((keyring.identities().len(), keyring.plain()), (identities, plain), "{query}");
        }
        let e = read("plain_until=2&require_encryption=0", &[]).unwrap_err().to_string();
        assert!(e.contains("keep one"), "{e}");
    }

    #[test]
    fn identities_come_from_every_layer_and_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.txt");
        std::fs::write(&file, format!("# created: today\n{IDENTITY}\n")).unwrap();
        let path: &'static str = file.display().to_string().leak();
        let expected = Identities::parse(HEX).unwrap();
        let variables: [&'static [(&str, &str)]; 3] = [
            &[("LITESTREAM_AGE_IDENTITY", IDENTITY)],
            &[("LITESTREAM_AGE_SECRET_KEY", HEX)],
            vec![("LITESTREAM_AGE_IDENTITY_FILE", path)].leak(),
        ];
        for variable in variables {
            let env: [(&'static str, &'static str); 1] = [variable[0]];
            assert_eq!(*read("", &env).unwrap().identities(), expected, "{}", variable[0].0);
            // What is nearer wins, in whichever form it is given.
            let nearer = read(&format!("age_identity_file={path}"), &env).unwrap();
            assert_eq!(*nearer.identities(), expected);
        }
        let e =
            read(&format!("age_identity={IDENTITY}&age_identity_file={path}"), &[]).unwrap_err().to_string();
        assert!(e.contains("keep one") && !e.contains(IDENTITY), "{e}");
        let e = read("age_identity=AGE-SECRET-KEY-1QQQQ", &[]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().starts_with("age_identity: ") && !e.to_string().contains("QQQQ"), "{e}");
        let missing = read("age_identity_file=/no/such/key", &[]).unwrap_err().to_string();
        assert!(missing.contains("/no/such/key"), "{missing}");
    }

    const RECIPIENT: &str = "age1mr4vlx62swszp35e5ltsjyl2pj95yw6ufdef2l469llv6u7v9fpsmk7rgt";
    const OTHER: &str = "age1q3elpaxl704e67nvhm7efjvqahafpfzj4td7d6k3z94jdp4x65qq69fg4c";

    fn open(query: &str, read_only: bool, env: &dyn Env) -> Result<Config> {
        let query = format!("replica=file:///r{query}");
        resolve(Some(Path::new("/data/app.db")), &params(&query), read_only, env)
    }

    fn recipients(query: &str, env: &dyn Env) -> Result<Recipients> {
        let Config::Primary(primary) = open(query, false, env)? else { panic!("a primary") };
        Ok(primary.replicas[0].options.recipients.clone())
    }

    #[test]
    fn recipients_come_from_every_layer() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipients");
        std::fs::write(&file, format!("# ours\n{RECIPIENT}\n{OTHER}\n")).unwrap();
        let path: &'static str = file.display().to_string().leak();
        let both = Recipients::parse(&format!("{OTHER} {RECIPIENT}")).unwrap();
        let one = Recipients::parse(RECIPIENT).unwrap();
        assert_eq!(recipients(&format!("&age_recipient={RECIPIENT}"), &[]).unwrap(), one);
        let twice = format!("&age_recipient={RECIPIENT}&age_recipient={OTHER}");
        assert_eq!(recipients(&twice, &[]).unwrap(), both);
        assert_eq!(recipients(&format!("&age_recipients_file={path}"), &[]).unwrap(), both);
        assert_eq!(recipients("", &[("LITESTREAM_AGE_RECIPIENT", RECIPIENT)]).unwrap(), one);
        assert_eq!(recipients("", &[("LITESTREAM_AGE_RECIPIENTS_FILE", path)]).unwrap(), both);
        // What is nearer wins.
        let nearer = format!("&age_recipient={OTHER}");
        let env = [("LITESTREAM_AGE_RECIPIENT", RECIPIENT)];
        assert_eq!(recipients(&nearer, &env).unwrap(), Recipients::parse(OTHER).unwrap());
        assert!(recipients("", &[]).unwrap().is_empty());
        let e = recipients(&format!("&age_recipient={OTHER}&age_recipients_file={path}"), &[]).unwrap_err();
        assert!(e.to_string().contains("keep one"), "{e}");
    }

    #[test]
    fn a_primary_for_which_encryption_was_asked_is_never_plain() {
        let identity = format!("&age_identity={IDENTITY}");
        let hex = format!("&age_recipient={HEX}");
        for query in [
            "&age_recipient=age1x",
            "&age_recipient=",
            "&age_recipients_file=/no/such",
            "&plain_until=3",
            &identity,
            &hex,
        ] {
            let e = open(query, false, &[]).unwrap_err().to_string();
            assert!(!e.contains(IDENTITY) && !e.contains(HEX), "{e}");
        }
        let in_env = [("LITESTREAM_AGE_RECIPIENT", "age1x")];
        assert!(open("", false, &in_env).unwrap_err().to_string().starts_with("LITESTREAM_AGE_RECIPIENT: "));
        let plain = format!("{identity}&require_encryption=0");
        assert!(recipients(&plain, &[]).unwrap().is_empty());
        assert!(matches!(open(&identity, true, &[]).unwrap(), Config::Replica(_)));
    }

    #[test]
    fn an_empty_variable_asks_for_encryption_too() {
        #[derive(Debug)]
        struct Empty;
        impl Env for Empty {
            fn var(&self, _: &str) -> Option<String> {
                None
            }

            fn is_empty(&self, name: &str) -> bool {
                name == "LITESTREAM_AGE_RECIPIENTS_FILE"
            }
        }
        let e = resolve(Some(Path::new("/d/a.db")), &params("replica=file:///r"), false, &Empty).unwrap_err();
        assert!(e.to_string().starts_with("LITESTREAM_AGE_RECIPIENTS_FILE: "), "{e}");
    }

    #[test]
    fn the_url_of_a_replica_may_have_its_own() {
        let url = format!("replica=file:///r%3Fage_identity%3D{HEX}").replace("%3F", "?").replace("%3D", "=");
        let config = resolve(Some(Path::new("/d/a.db")), &params(&url), true, &[]).unwrap();
        let Config::Replica(replica) = config else { panic!("a replica") };
        assert_eq!(replica.targets[0].keyring().identities().len(), 1);
        assert!(!replica.targets[0].to_string().contains(HEX));
    }
}
