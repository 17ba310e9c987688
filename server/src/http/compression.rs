//! Pages as gzip, for who asks for it.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY},
};

use crate::api::grpc::body::Body;

/// Compresses `response`, if the client has said that it takes gzip. Others may be told apart by caches.
pub(super) fn compress(request: &HeaderMap, mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    let accepted = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(takes_gzip);
    let Body::Plain(page) = response.body() else { return response };
    if !accepted {
        return response;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail; a page that is not compressed is as good.
    if let Ok(bytes) = encoder.write_all(page).and_then(|()| encoder.finish()) {
        *response.body_mut() = Body::Plain(bytes.into());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether a list of encodings has gzip, with a weight other than 0.
fn takes_gzip(list: &str) -> bool {
    list.split(',').any(|part| {
        let (name, weight) = part.split_once(';').unwrap_or((part, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse().unwrap_or(1.0));
        name.trim().eq_ignore_ascii_case("gzip") && weight > 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_asked_for_by_its_name_and_with_a_weight() {
        for (list, taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("zstd, br,gzip ; q=1", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(list), taken, "{list}");
        }
    }
}
