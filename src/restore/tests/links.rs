//! A link that leads nowhere yet is a place for a database, as it is for SQLite.

use super::*;

#[test]
fn a_link_that_leads_nowhere_stays_and_what_it_leads_to_is_made() {
    let history = ten();
    for options in [latest(), force()] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("real/deep")).unwrap();
        symlink("real/deep", at("way")).unwrap();
        symlink(at("real/a.db"), at("absolute")).unwrap();
        symlink("way/../b.db", at("relative")).unwrap();
        symlink("way/c", at("chain")).unwrap();
        symlink("../c.db", at("real/deep/c")).unwrap();
        for (link, file) in [("absolute", "real/a.db"), ("relative", "real/b.db"), ("chain", "real/c.db")] {
            dry_run(history.store(), &at(link), &options).unwrap();
            let report = restore(history.store(), &at(link), &options).unwrap();
            assert_eq!(report.path, at(link));
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            assert!(fs::symlink_metadata(at(file)).unwrap().is_file(), "{link}");
            assert!(fs::read(at(file)).unwrap() == history.image(10), "{link}");
        }
        assert_eq!(names(&at("real")), ["a.db", "b.db", "c.db", "deep"]);
        assert_eq!(names(folder.path()), ["absolute", "chain", "real", "relative", "way"]);
    }
}

#[test]
fn a_link_that_leads_to_no_place_for_a_file_is_refused() {
    for options in [latest(), force()] {
        let folder = tempfile::tempdir().unwrap();
        for (link, to, says) in [
            ("a.db", "nowhere/a.db", "nowhere; make it first"),
            ("b.db", "c.db", "in a circle"),
            ("c.db", "b.db", "in a circle"),
            ("d.db", "d.db", "in a circle"),
        ] {
            let link = folder.path().join(link);
            symlink(to, &link).unwrap();
            if to == "c.db" {
                continue;
            }
            let error = restore(ten().store(), &link, &options).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(&link.display().to_string()), "{error}");
        }
        assert_eq!(names(folder.path()), ["a.db", "b.db", "c.db", "d.db"]);
    }
}

#[test]
fn a_name_that_others_make_and_remove_ends_the_restore() {
    let history = ten();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    // Nothing is seen there, and yet the name is taken.
    let taken = path.clone();
    let store = Hooked::store(&history.store, move |_, _| {
        let _ = symlink("nowhere", &taken);
    });
    let error = restore(store, &path, &force()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("app.db"), "{error}");
    assert_eq!(names(folder.path()), ["app.db"]);
}
