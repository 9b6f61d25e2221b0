//! Names of hosts in a static binary: by its own code, never by the machine's.
//!
//! glibc looks names up as `/etc/nsswitch.conf` says, and what that names beyond `files` and `dns` it loads from the
//! machine's libraries (`libnss_….so`), together with that machine's libc. In a static binary the two libcs need not be
//! one version, and a process with two of them may crash. `files` and `dns` are built in.

/// Lets a static binary look hosts up in `/etc/hosts` and by DNS alone. Elsewhere the machine decides, as usual.
pub(crate) fn keep_to_our_own() {
    #[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{c_char, c_int};
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        // SAFETY: both are strings with a NUL at the end, which glibc reads and does not keep; no other thread runs yet
        // that could look a name up meanwhile. It fails only where it does not know the database, and then all is as before.
        unsafe {
            __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        }
    }
}
