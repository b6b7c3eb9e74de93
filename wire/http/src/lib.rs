//! HTTP/1.1 codec without IO: strict framing; W3C trace context.
