//! The URL with a place for the key.
//!
//! Knows URLs, no connection. The invariant: whatever the key, the URL differs from that of another key in nothing but the
//! place of the key.

use std::fmt;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::HttpSourceError;

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PLACE: &str = "{key}";

#[derive(Clone)]
pub(super) struct Template {
    before: String,
    after: String,
}

impl Template {
    pub(super) fn parse(url: &str) -> Result<Self, HttpSourceError> {
        let refused = |reason: &str| HttpSourceError::Url { url: shown(url), reason: reason.to_owned() };
        let Some((scheme, rest)) = url.split_once("://") else { return Err(refused("it is no http or https URL")) };
        if !["http", "https"].contains(&scheme) {
            return Err(refused("it is no http or https URL"));
        }
        let (host, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if host.contains('@') {
            return Err(refused("a login in it is not sent; give a header `Authorization`"));
        }
        if rest.contains('#') {
            return Err(refused("a fragment is not sent; leave it out"));
        }
        if rest.matches(PLACE).count() != 1 {
            return Err(refused("`{key}` has to stand once in its path or query"));
        }
        let (before, after) = url.split_once(PLACE).ok_or_else(|| refused("`{key}` is missing"))?;
        let template = Self { before: before.to_owned(), after: after.to_owned() };
        let sample: Result<Uri, _> = template.text("key").parse();
        sample.map_err(|error| refused(&error.to_string()))?;
        Ok(template)
    }

    /// `None` for a key whose path a server would read as another one.
    pub(super) fn url(&self, key: &str) -> Option<Uri> {
        if ["", ".", ".."].contains(&key) {
            return None;
        }
        self.text(key).parse().ok()
    }

    fn text(&self, key: &str) -> String {
        format!("{}{}{}", self.before, utf8_percent_encode(key, RESERVED), self.after)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&format!("{}{PLACE}{}", self.before, self.after)))
    }
}

/// Without what may be secret: a login, and what stands in the query beside the key.
pub(super) fn shown(url: &str) -> String {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let place = match place.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}"),
            None => place.to_owned(),
        },
        None => place.to_owned(),
    };
    let parameter = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if !value.contains(PLACE) => format!("{name}=***"),
        _ => parameter.to_owned(),
    };
    query.map_or(place.clone(), |query| {
        format!("{place}?{}", query.split('&').map(parameter).collect::<Vec<_>>().join("&"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_its_place() {
        let path = Template::parse("https://api.example.com/users/{key}/name?token=s3cret").unwrap();
        let url = |key: &str| path.url(key).unwrap().to_string();
        assert_eq!(url("42"), "https://api.example.com/users/42/name?token=s3cret");
        assert_eq!(url("a/../b?c#d"), "https://api.example.com/users/a%2F..%2Fb%3Fc%23d/name?token=s3cret");
        assert_eq!(url("a b\r\n%€"), "https://api.example.com/users/a%20b%0D%0A%25%E2%82%AC/name?token=s3cret");
        assert!(["", ".", ".."].iter().all(|key| path.url(key).is_none()));
        let query = Template::parse("http://127.0.0.1:8080?q={key}").unwrap();
        assert_eq!(query.url("a&b=c").unwrap().query(), Some("q=a%26b%3Dc"));
        assert_eq!(
            format!("{path:?} {query:?}"),
            "https://api.example.com/users/{key}/name?token=*** http://127.0.0.1:8080?q={key}"
        );
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_by_name() {
        let refused = |url: &str| Template::parse(url).unwrap_err().to_string();
        assert!(refused("ftp://host/{key}").contains("\"ftp://host/{key}\": it is no http or https URL"));
        assert!(refused("users/{key}").contains("no http or https URL"));
        assert!(refused("http://host/users").contains("`{key}` has to stand once"));
        assert!(refused("http://host/{key}/{key}").contains("has to stand once"));
        assert!(refused("http://{key}/users").contains("has to stand once"));
        let login = refused("http://ada:pass@host/{key}");
        assert!(login.contains("header `Authorization`") && !login.contains("pass"), "{login}");
        assert!(refused("http://host/{key}#top").contains("a fragment is not sent"));
        assert!(refused("http://host/a b/{key}").contains("invalid uri"));
        assert!(refused("http:///{key}").contains("http:///{key}"));
    }
}
