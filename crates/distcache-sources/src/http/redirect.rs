//! Where a redirection leads (RFC 9110, section 10.2.2; RFC 3986, section 5.2).
//!
//! Pure: two URLs in, one out. The invariant: a redirection never leads from https to anything but https.

use hyper::http::uri::{PathAndQuery, Scheme, Uri};

/// `None` for a reference that makes no URL, or one that must not be followed.
pub(super) fn target(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default().trim();
    let to = if location.contains("://") && !location.starts_with(['/', '?', '.']) {
        location.parse().ok()?
    } else {
        relative(from, location)?
    };
    let is_http = to.scheme() == Some(&Scheme::HTTP) && from.scheme() == Some(&Scheme::HTTP);
    let may_follow = is_http || to.scheme() == Some(&Scheme::HTTPS);
    (may_follow && to.host().is_some_and(|host| !host.is_empty()) && !to.authority()?.as_str().contains('@'))
        .then_some(to)
}

fn relative(from: &Uri, location: &str) -> Option<Uri> {
    if let Some(authority) = location.strip_prefix("//") {
        return format!("{}://{authority}", from.scheme_str()?).parse().ok();
    }
    let path = match location.as_bytes().first() {
        Some(b'/') => location.to_owned(),
        Some(b'?') => format!("{}{location}", from.path()),
        None => from.path_and_query()?.to_string(),
        Some(_) => format!("{}/{location}", from.path().rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(without_dots(&path)).ok()?);
    Uri::from_parts(parts).ok()
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

/// Whether headers meant for the one may be sent to the other.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    one.scheme() == other.scheme() && host(one) == host(other) && port(one) == port(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_leads_where_the_rfc_says() {
        let from: Uri = "http://a/b/c/d?q".parse().unwrap();
        for (location, to) in [
            ("https://x/y", "https://x/y"),
            ("//x/y?z", "http://x/y?z"),
            ("/g", "http://a/g"),
            ("?y", "http://a/b/c/d?y"),
            ("g", "http://a/b/c/g"),
            ("./g?u=http://h/", "http://a/b/c/g?u=http://h/"),
            ("../g#s", "http://a/b/g"),
            ("../../../g", "http://a/g"),
            ("..", "http://a/b/"),
            ("/x/./y/..", "http://a/x/"),
            ("", "http://a/b/c/d?q"),
        ] {
            assert_eq!(target(&from, location).map(|to| to.to_string()).as_deref(), Some(to), "{location}");
        }
        for nowhere in ["ftp://x/y", "https://user@x/y", "http:///y", "a b"] {
            assert_eq!(target(&from, nowhere), None, "{nowhere}");
        }
        assert_eq!(target(&"https://a/b".parse().unwrap(), "http://a/b"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| is_same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("http://a/b", "http://A:80/c"));
        assert!(!same("http://a/b", "https://a/b"));
        assert!(!same("http://a/b", "http://a:81/b"));
        assert!(!same("http://a/b", "http://a.b/b"));
    }
}
