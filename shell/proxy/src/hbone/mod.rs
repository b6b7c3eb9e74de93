//! HBONE: HTTP/2 CONNECT under mutual TLS on port 15008, as istio/ztunnel speaks it.
pub mod client;
pub mod pool;
pub mod server;
pub mod stream;

/// Window of one stream: a gigabyte a second at a millisecond, and a bound on what a slow reader can make us hold.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Window of one tunnel: that of all its streams, or nine callers that do not read would stop all others of the tunnel.
pub const TUNNEL_WINDOW_BYTES: u32 = STREAMS_PER_TUNNEL * STREAM_WINDOW_BYTES;
/// Larger frames, fewer headers and fewer records.
pub const FRAME_BYTES: u32 = 256 << 10;
/// Streams that a tunnel carries before the pool opens another; also what we take from a peer, doubled for its races.
pub const STREAMS_PER_TUNNEL: u32 = 100;

/// A draining proxy's answer to a CONNECT carries this: another endpoint should be asked. As a field of the CONNECT it tells what
/// the caller can do: [`ELSEWHERE`] or [`LAST_RESORT`].
pub const DRAINING: &str = "x-diolkos-draining";
/// The caller sends a request elsewhere when it is told that the pod drains, also one on a connection that it has already.
pub const ELSEWHERE: &str = "elsewhere";
/// The caller has no other endpoint, and is served while the process still listens.
pub const LAST_RESORT: &str = "last-resort";
