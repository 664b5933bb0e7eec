//! Where records are kept. Each kind of store has its arm below; a new one does not compile without.

use super::{finding::Finding, paths};
use crate::config::{Config, Store};

const CHECK: &str = "kad.store";

pub(super) fn check(config: &Config) -> Finding {
    let subject = "records";
    match &config.kad.store {
        Store::Memory => Finding::ok(CHECK, subject, "in memory: gone when all nodes leave at once"),
        Store::File(path) => match paths::can_make(path) {
            Ok(()) => Finding::ok(CHECK, subject, format!("in {}", path.display())),
            Err((dir, why)) => Finding::fail(
                CHECK,
                subject,
                format!("{} {why}", dir.display()),
                "put a volume there that this user may write to, or set kad.store = \"memory\"",
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn a_store_has_to_be_makeable_where_it_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        for (store, expected) in [
            (Store::Memory, Verdict::Ok),
            (Store::File(dir.path().join("new/records")), Verdict::Ok),
            (Store::File(dir.path().join("file/records")), Verdict::Fail),
        ] {
            let mut config = Config::default();
            config.kad.store = store;
            assert_eq!(check(&config).verdict, expected, "{:?}", config.kad.store);
        }
    }
}
