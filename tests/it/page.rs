//! The page at `GET /`: its headers, its policy, its size. What it does in a browser is tested in
//! tests/page/browser.py.

use crate::support::http::{Answer, Api};
use crate::support::{Network, run};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use smidge::config::ApiListen;

const MOST: usize = 40 * 1024;

async fn api(net: &Network, change: impl FnOnce(&mut smidge::Config)) -> (smidge::Client, Api) {
    let mut config = net.config(2, &[]);
    change(&mut config);
    let node = net.spawn(config.clone());
    let api = Api::serve(net, &node, config).await;
    (node, api)
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What stands between the only `<tag>` and its end.
fn inside<'a>(page: &'a str, tag: &str) -> &'a str {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    assert_eq!((page.matches(&open).count(), page.matches(&close).count()), (1, 1), "one {tag}");
    page.split_once(&open).unwrap().1.split_once(&close).unwrap().0
}

#[test]
fn the_page_is_small_and_needs_nothing_from_elsewhere() {
    run(async |net| {
        let (_node, api) = api(&net, |_| {}).await;
        let answer = api.get("/").await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.body.len() < MOST, "{} bytes", answer.body.len());
        assert_eq!(header(&answer, "Content-Type"), Some("text/html; charset=utf-8"));
        let page = answer.text();
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"));
        for tag in ["html", "head", "body", "main"] {
            assert_eq!(page.matches(&format!("</{tag}>")).count(), 1, "{tag} is closed once");
        }
        // The names of SVG's namespace are no addresses to load from.
        let loads = page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "//cdn", "@import", "url(", "src=", "<iframe", "<object", "<base"]
        {
            assert!(!loads.contains(outside), "the page has {outside:?}");
        }
        // Nothing that makes markup or code of a string.
        let script = inside(&page, "script");
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!script.contains(word), "the script has {word:?}");
        }
        // No handler and no style in the markup: the policy would refuse them.
        let (markup, _) = page.split_once("<script>").unwrap();
        for tag in markup.split('<').filter_map(|tag| tag.split('>').next()) {
            let refused =
                |word: &str| word.contains('=') && (word.starts_with("on") || word.starts_with("style"));
            assert!(!tag.split_whitespace().any(refused), "<{tag}>");
        }
        let head = api.ask("HEAD", "/", b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(header(&head, "Content-Length"), Some(answer.body.len().to_string().as_str()));
    });
}

#[test]
fn the_policy_lets_run_what_the_page_has_and_nothing_else() {
    run(async |net| {
        let (_node, api) = api(&net, |_| {}).await;
        let answer = api.get("/").await;
        let page = answer.text();
        let hash = |tag| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(inside(&page, tag))));
        let policy = header(&answer, "Content-Security-Policy").unwrap();
        let mut rules: Vec<_> = policy.split("; ").collect();
        rules.sort_unstable();
        assert_eq!(
            rules,
            [
                "base-uri 'none'",
                "connect-src 'self'",
                "default-src 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "img-src data:",
                &format!("script-src {}", hash("script")),
                &format!("style-src {}", hash("style")),
            ]
        );
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "same-origin"),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ] {
            assert_eq!(header(&answer, name), Some(value), "{name}");
        }
    });
}

#[test]
fn who_has_the_page_is_not_sent_it_again() {
    run(async |net| {
        let (_node, api) = api(&net, |_| {}).await;
        let first = api.get("/").await;
        assert_eq!(header(&first, "Cache-Control"), Some("no-cache"));
        let tag = header(&first, "ETag").unwrap().to_owned();
        let again = async |tags: &str| {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nIf-None-Match: {tags}\r\n\r\n",
                api.addr
            );
            api.raw(request.as_bytes()).await
        };
        for tags in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            let answer = again(&tags).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{tags}");
            assert_eq!(header(&answer, "ETag"), Some(tag.as_str()));
            assert_eq!(header(&answer, "Content-Length"), None);
        }
        for tags in ["\"other\"", "", tag.trim_matches('"')] {
            assert_eq!(again(tags).await.body, first.body, "{tags}");
        }
        assert_eq!(header(&api.get("/v1/status").await, "Cache-Control"), Some("no-store"));
    });
}

#[test]
fn the_page_is_guarded_and_gives_nothing_away() {
    run(async |net| {
        let (node, locked) = api(&net, |config| {
            config.api.listen = ApiListen::Tcp(([0, 0, 0, 0], 0).into());
            config.api.token = Some("s3cret-s3cret-s3cret".to_owned().into());
        })
        .await;
        let page = locked.get("/").await;
        assert_eq!(page.status, 200, "the page itself needs no token");
        assert!(!page.text().contains(&node.peer_id().to_string()) && !page.text().contains("s3cret"));
        assert_eq!(locked.get("/v1/status").await.status, 401);
        let mut config = net.config(3, &[]);
        config.gossip.topics.clear();
        let other = net.spawn(config.clone());
        let open = Api::serve(&net, &other, config).await;
        assert_eq!(open.get("/").await.body, page.body, "it is the same page for everybody");
        for (headers, status) in [
            (format!("Host: {}\r\n", open.addr), 200),
            ("Host: evil.example\r\n".to_owned(), 403),
            (format!("Host: {}\r\nOrigin: http://evil.example\r\n", open.addr), 403),
            (format!("Host: {}\r\nSec-Fetch-Site: cross-site\r\n", open.addr), 403),
            (format!("Host: {}\r\nSec-Fetch-Site: none\r\n", open.addr), 200),
        ] {
            let request = format!("GET / HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
            assert_eq!(open.raw(request.as_bytes()).await.status, status, "{headers}");
        }
        assert_eq!(open.get("/?x=1").await.status, 400);
        assert_eq!(open.ask("POST", "/", b"").await.status, 405);
    });
}
