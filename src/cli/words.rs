//! What the API advises, in the words of verbs: who types `smidge pub` calls no `GET`.

/// What the API calls something, and what a person types.
const WORDS: [(&str, &str); 10] = [
    ("PUT /v1/state/TOPIC/KEY", "`smidge state set`"),
    ("GET /v1/peers", "`smidge peers`"),
    ("GET /v1/names", "`smidge names`"),
    ("GET /v1/status", "`smidge status`"),
    ("/v1/mesh", "`smidge mesh`"),
    ("/v1/names", "`smidge names`"),
    ("timeout=30", "--timeout 30"),
    ("timeout=", "--timeout"),
    ("quorum=", "--quorum"),
    ("wait_peers=", "--wait-peers "),
];

/// A hint of the API for whoever used a verb.
pub(super) fn of_verbs(hint: &str) -> String {
    WORDS.iter().fold(hint.to_owned(), |hint, (api, verb)| hint.replace(api, verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hint_of_the_api_sends_a_person_to_a_path_or_a_parameter() {
        let sources = [include_str!("../gateway/answer.rs"), include_str!("../gateway/handlers.rs")];
        let mut seen = 0;
        for line in sources.iter().flat_map(|source| source.lines()) {
            // Literals of one line, which hints are.
            for literal in line.split('"').skip(1).step_by(2) {
                if !["GET /", "/v1/", "timeout=", "quorum=", "wait_peers="]
                    .iter()
                    .any(|api| literal.contains(api))
                {
                    continue;
                }
                seen += 1;
                let said = of_verbs(literal);
                assert!(!["GET ", "/v1/", "=3", "t= ", "m= "].iter().any(|api| said.contains(api)), "{said}");
                assert!(!said.ends_with('='), "{said}");
            }
        }
        assert!(seen >= 5, "{seen}");
        assert_eq!(
            of_verbs("GET /v1/peers tells who is connected; timeout=30 waits longer"),
            "`smidge peers` tells who is connected; --timeout 30 waits longer"
        );
    }
}
