//! `GET /`: one page for a person, which asks the API as any other caller does.
//!
//! The page is the same for all and says nothing of the node: what it shows comes from the API,
//! with the token where one is needed. It loads nothing from elsewhere, and its policy lets nothing
//! run but the one script whose hash it names. Asks no node.

use std::sync::LazyLock;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use sha2::{Digest, Sha256};

use super::{
    answer::{Answer, Refusal},
    target::Query,
};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// The page is put together for each answer, so that the binary has its script and style once.
const PAGE: [&str; 7] = [
    include_str!("page/head.html"),
    "<style>",
    STYLE,
    concat!("</style>\n", include_str!("page/body.html")),
    "<script>",
    SCRIPT,
    "</script>\n</body>\n</html>\n",
];

/// What the browser may do with the page (CSP, level 3): run this script, show this style, ask this node.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// Another page has another tag (RFC 9110, section 8.8.3).
static TAG: LazyLock<String> =
    LazyLock::new(|| format!("\"{}\"", BASE64URL_NOPAD.encode(&Sha256::digest(PAGE.concat())[..12])));

/// The page, or that the caller has it already.
pub(super) fn answer<'a>(
    if_none_match: impl Iterator<Item = &'a str>,
    query: Query,
) -> Result<Answer, Refusal> {
    query.done("no parameters")?;
    let tag = TAG.as_str();
    let mut known = if_none_match.flat_map(|list| list.split(',')).map(str::trim);
    let is_known = known.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag);
    let body = if is_known { Vec::new() } else { PAGE.concat().into_bytes() };
    Ok(Answer {
        status: if is_known { 304 } else { 200 },
        // Kept, and asked about each time: a node that was updated shows its own page.
        caching: "no-cache",
        headers: vec![
            ("ETag", tag.to_owned()),
            ("Content-Security-Policy", POLICY.clone()),
            ("Referrer-Policy", "same-origin".to_owned()),
            ("X-Frame-Options", "DENY".to_owned()),
            ("Cross-Origin-Resource-Policy", "same-origin".to_owned()),
        ],
        ..Answer::new("text/html; charset=utf-8", body)
    })
}
