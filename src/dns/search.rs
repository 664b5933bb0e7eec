//! Which full names a written name may stand for, and in which order they are asked for.
//!
//! As in glibc: a name with at least `ndots` dots is asked for as it is first and with the
//! search domains after; a shorter one the other way round. A final dot ends all of this.

use super::name::HostName;

/// The names to ask for, in order, without repetition; never empty.
pub(super) fn candidates(name: &HostName, search: &[HostName], ndots: usize) -> Vec<HostName> {
    if name.is_absolute() {
        return vec![name.clone()];
    }
    let mut names: Vec<_> = search.iter().filter_map(|domain| name.under(domain)).collect();
    let place = if name.dots() >= ndots { 0 } else { names.len() };
    names.insert(place, name.clone());
    let mut seen = Vec::with_capacity(names.len());
    names.retain(|name| {
        let new = !seen.iter().any(|s| s == name.as_str());
        seen.push(name.as_str().to_owned());
        new
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_glibc_does() {
        for (name, search, ndots, expected) in [
            ("headless", "a b", 5, "headless.a headless.b headless"),
            ("headless.ns", "a b", 5, "headless.ns.a headless.ns.b headless.ns"),
            ("peer", "a", 0, "peer peer.a"),
            ("peer", "a", 1, "peer.a peer"),
            ("tasks.peer", "a", 1, "tasks.peer tasks.peer.a"),
            ("a.b.c.d.e.f", "a", 5, "a.b.c.d.e.f a.b.c.d.e.f.a"),
            ("peer.", "a b", 5, "peer"),
            ("peer", "", 5, "peer"),
            ("peer", "a a", 5, "peer.a peer"),
        ] {
            let parsed: Vec<_> = search.split_whitespace().map(|d| HostName::parse(d).unwrap()).collect();
            let names = candidates(&HostName::parse(name).unwrap(), &parsed, ndots);
            let names: Vec<_> = names.iter().map(HostName::as_str).collect();
            assert_eq!(names.join(" "), expected, "{name} with search {search:?}, ndots {ndots}");
        }
    }

    #[test]
    fn a_domain_that_makes_the_name_too_long_is_passed_over() {
        let name = HostName::parse(&["a".repeat(60).as_str(); 4].join(".")).unwrap();
        let search = [HostName::parse("long-domain").unwrap()];
        assert_eq!(candidates(&name, &search, 5), [name]);
    }
}
