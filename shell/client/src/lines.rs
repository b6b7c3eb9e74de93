use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A watch answer's body, one JSON document a line.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    scanned: usize,
}

/// A single object larger than this is no object of Kubernetes (its own limit is about 3 MiB).
const MAX_LINE: usize = 16 << 20;

impl Lines {
    pub fn new(body: Incoming) -> Self {
        Lines { body, buffer: BytesMut::new(), scanned: 0 }
    }

    /// The next line without its end, or `None` at the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(found) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.scanned + found + 1);
                self.scanned = 0;
                line.truncate(line.len() - 1);
                if !line.is_empty() {
                    return Ok(Some(line.freeze()));
                }
                continue;
            }
            self.scanned = self.buffer.len();
            if self.scanned > MAX_LINE {
                return Err(format!("a watch event is longer than {MAX_LINE} bytes"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => return Ok(None),
            }
        }
    }
}
