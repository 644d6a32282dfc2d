//! A page for people that shows what `/v1/cluster` tells, and asks again every two seconds.
//!
//! Guarantees: the page is one file without a build step and loads nothing from anywhere else; its
//! policy lets only its own style and script run, and those only talk to the node that served it.
//! It shows text as text. Leaves out: anything that changes the cluster.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{extract::NoQuery, reply::Rejection};

const PAGE: &str = include_str!("status_page.html");

/// `GET /`
pub(crate) async fn page(NoQuery: NoQuery) -> Result<Response, Rejection> {
    static POLICY: LazyLock<Option<HeaderValue>> =
        LazyLock::new(|| HeaderValue::from_str(&policy(PAGE)).ok());
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    if let Some(policy) = &*POLICY {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// The policy under which only the style and the script of `page` run, by their hashes.
fn policy(page: &str) -> String {
    format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash_of(page, "style"),
        hash_of(page, "script"),
    )
}

fn hash_of(page: &str, element: &str) -> String {
    let inside = page
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map_or("", |(inside, _)| inside);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_and_one_script_and_names_no_other_place() {
        for part in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(part).count(), 1, "{part}");
        }
        // The name space of SVG is no place.
        let places = PAGE.replace("http://www.w3.org/2000/svg", "");
        for place in ["http:", "https:", "//cdn", "@import", " style=", " onclick", "innerHTML"] {
            assert!(!places.contains(place), "{place}");
        }
    }

    #[test]
    fn the_policy_names_hashes_and_nothing_that_opens_it() {
        let policy = policy("<style>a{}</style><script>b()</script>");
        // printf %s 'a{}' | openssl dgst -sha256 -binary | base64
        let style = "style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='";
        let script = "script-src 'sha256-cf242PFc/kb7xD0Qzhsmd9vvRkc+cWFmbi+k+YvtdKc='";
        assert!(policy.contains(style) && policy.contains(script), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }
}
