//! Compressed requests.
//!
//! Clients may send their messages compressed with gzip; answers are never compressed. Everything but the look at one header stands aside from the way
//! of the requests that are not.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, HeaderName};
use tonic::Status;

use super::message::too_large;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Bytes of an unknown encoding's name that a client is told again.
const NAME_BYTES_MAX: usize = 100;

/// How a call's compressed messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all: there must be none.
    Identity,
    /// With gzip.
    Gzip,
}

impl Encoding {
    /// What a call's head says.
    ///
    /// # Errors
    /// Something that this server does not know.
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get(GRPC_ENCODING) {
            None => Ok(Self::Identity),
            Some(name) => Self::named(name.as_bytes()),
        }
    }

    #[cold]
    fn named(name: &[u8]) -> Result<Self, Status> {
        match name {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" => Ok(Self::Gzip),
            unknown => {
                let name = String::from_utf8_lossy(&unknown[..unknown.len().min(NAME_BYTES_MAX)]);
                Err(Status::unimplemented(format!("grpc: Decompressor is not installed for grpc-encoding {name:?}")))
            }
        }
    }

    /// The message that was sent as `compressed`.
    ///
    /// # Errors
    /// It is larger than `bytes_max`, or was not compressed as the call's head says.
    #[cold]
    pub fn decompress(self, compressed: &[u8], bytes_max: usize) -> Result<Bytes, Status> {
        if self == Self::Identity {
            return Err(Status::internal("grpc: compressed flag set with identity or empty encoding"));
        }
        let damaged = |why: &dyn std::fmt::Display| {
            Status::internal(format!("grpc: failed to decompress the received message: {why}"))
        };
        if compressed.is_empty() {
            return Err(damaged(&"EOF"));
        }
        let mut message = Vec::new();
        let read = MultiGzDecoder::new(compressed).take(bytes_max as u64 + 1).read_to_end(&mut message);
        read.map_err(|error| damaged(&error))?;
        if message.len() > bytes_max {
            // What follows is not looked at; the size stands at the end.
            let told = compressed.last_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
            return Err(too_large(told.max(message.len()), bytes_max));
        }
        Ok(message.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use http::HeaderValue;
    use tonic::Code;

    use super::*;

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn messages_are_decompressed_up_to_their_limit() {
        let message = vec![7; 1000];
        assert_eq!(Encoding::Gzip.decompress(&gzip(&message), 1000).unwrap(), message);
        let two = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(Encoding::Gzip.decompress(&two, 1000).unwrap(), "ab");
        let refused = Encoding::Gzip.decompress(&gzip(&vec![0; 50_000_000]), 1000).unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::ResourceExhausted, "grpc: received message larger than max (50000000 vs. 1000)")
        );
    }

    #[test]
    fn what_is_not_compressed_as_it_says_is_refused() {
        let whole = gzip(b"some words");
        for cut in 0..whole.len() {
            let status = Encoding::Gzip.decompress(&whole[..cut], 1000).unwrap_err();
            assert_eq!(status.code(), Code::Internal, "cut at {cut}");
        }
        assert_eq!(Encoding::Gzip.decompress(b"some words", 1000).unwrap_err().code(), Code::Internal);
        assert_eq!(
            Encoding::Identity.decompress(&whole, 1000).unwrap_err().message(),
            "grpc: compressed flag set with identity or empty encoding"
        );
    }

    #[test]
    fn the_head_says_how_messages_are_compressed() {
        let of = |name: &'static str| {
            let headers = HeaderMap::from_iter([(GRPC_ENCODING, HeaderValue::from_static(name))]);
            Encoding::of(&headers).map_err(|status| (status.code(), status.message().to_owned()))
        };
        assert_eq!(Encoding::of(&HeaderMap::new()).unwrap(), Encoding::Identity);
        assert_eq!((of("identity"), of("gzip")), (Ok(Encoding::Identity), Ok(Encoding::Gzip)));
        let told = "grpc: Decompressor is not installed for grpc-encoding \"deflate\"".to_owned();
        assert_eq!(of("deflate"), Err((Code::Unimplemented, told)));
    }
}
