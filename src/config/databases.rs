//! The databases that the configuration file has.

use std::path::PathBuf;

use super::catalog::REPLICA_URL;
use super::layer::{Given, file};
use super::resolve::{FoundReplica, Layers, history, located_at};
use super::{Env, RetentionConfig};
use crate::error::{Error, Result};
use crate::files;

/// A database of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredDatabase {
    /// Its file, which need not be there.
    pub path: PathBuf,
    /// Its folder of local state, which need not be there.
    pub state_folder: PathBuf,
    /// Its replicas, in the order of the file.
    pub replicas: Vec<RetentionConfig>,
}

/// The databases of the configuration file, in its order; of an entry for a folder, those that are in it now.
///
/// # Errors
/// `Config`: there is no configuration file, or it is wrong; `Io`: a folder cannot be read.
pub fn databases(env: &dyn Env) -> Result<Vec<ConfiguredDatabase>> {
    let document = Given::environment(env)
        .document()?
        .ok_or_else(|| Error::config("there is no configuration file: set LITESTREAM_CONFIG to its path"))?;
    let paths = file::databases(&document)?;
    paths.into_iter().map(|path| database(path, env)).collect()
}

/// The configuration file that is in force, if there is one.
///
/// # Errors
/// `Config`: it is wrong; `Io`, `Denied`: it cannot be read.
pub fn configuration_file(env: &dyn Env) -> Result<Option<PathBuf>> {
    Ok(Given::environment(env).document()?.map(|document| document.file.to_path_buf()))
}

/// The replica that `LITESTREAM_REPLICA_URL` names, if it is set.
///
/// # Errors
/// `Config`: it is no URL of a replica.
pub fn replica_in_environment(env: &dyn Env) -> Result<Option<RetentionConfig>> {
    let given = Given::environment(env);
    let Some(found) = given.env(&REPLICA_URL) else { return Ok(None) };
    let replica = located_at(&given, &found.text, &found.origin)?;
    let history = history(&replica.given)?.settings();
    Ok(Some(RetentionConfig { target: replica.location, history }))
}

fn database(path: PathBuf, env: &dyn Env) -> Result<ConfiguredDatabase> {
    let layers = Layers::with(Some(&path), Given::environment(env))?;
    let kept = |replica: FoundReplica<'_>| {
        let history = history(&replica.given)?.settings();
        Ok(RetentionConfig { target: replica.location, history })
    };
    let replicas = layers.configured()?.into_iter().map(kept).collect::<Result<_>>()?;
    let moved = layers.entries.iter().find_map(file::Matched::state_folder);
    let state_folder = moved.unwrap_or_else(|| files::state_folder(&path));
    Ok(ConfiguredDatabase { path, state_folder, replicas })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_listed_with_their_replicas() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("t/deep")).unwrap();
        for name in ["t/b.db", "t/a.db", "t/deep/c.db"] {
            std::fs::write(at(name), b"SQLite format 3\0 and more").unwrap();
        }
        std::fs::write(at("t/no.db"), b"something else").unwrap();
        let text = format!(
            "dbs:\n- path: {0}/app.db\n  meta-path: {0}/m\n  replica: {{url: 's3://bucket/app'}}\n- dir: {0}/t\n  \
             pattern: '*.db'\n  replica: {{url: 'file://{0}/r'}}\n",
            folder.path().display()
        );
        std::fs::write(at("litestream.yml"), text).unwrap();
        let config: &'static str = at("litestream.yml").display().to_string().leak();
        let found = databases(&[("LITESTREAM_CONFIG", config)]).unwrap();
        let shown: Vec<_> = found.iter().map(|db| (db.path.clone(), db.replicas[0].target.kind())).collect();
        assert_eq!(shown, [(at("app.db"), "s3"), (at("t/a.db"), "file"), (at("t/b.db"), "file")]);
        assert_eq!(found[0].state_folder, at("m"));
        assert_eq!(found[1].replicas[0].target.to_string(), format!("file://{}", at("r/a.db").display()));
        let e = databases(&[("LITESTREAM_CONFIG", "off")]).unwrap_err().to_string();
        assert!(e.contains("there is no configuration file"), "{e}");
    }
}
