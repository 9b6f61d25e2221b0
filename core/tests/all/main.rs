//! All tests of core's interface, as one program: it is built far sooner than one for each file.

mod bodies;
mod budget;
mod claims;
mod clocks;
mod commands;
mod content_blobs;
mod content_body;
mod content_form;
mod content_identity;
mod content_manifest;
mod deadlines;
mod documents;
mod faults;
mod following;
mod gateway;
mod have;
mod heads;
mod idle;
mod node;
mod parts;
mod peers;
mod selections;
mod serving;
mod settings;
mod shares;
mod sizes;
mod slow;
mod support;
mod tidy;
mod urgency;
mod versions;
mod whole;

/// Counts what each thread takes, for those tests that look at it.
#[global_allocator]
static HEAP: support::heap::CountingHeap = support::heap::CountingHeap;
