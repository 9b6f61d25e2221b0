//! Channels whose seeds are gone cost the live ones nothing.

mod eight;
mod scene;
mod thousand;
