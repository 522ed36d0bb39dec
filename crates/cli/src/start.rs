//! What is set up once, before anything else.

use tracing_subscriber::EnvFilter;

// The names of the two options are not all exported; the numbers are the same in mimalloc 2 and 3.
const ALLOW_LARGE_OS_PAGES: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_large_os_pages;
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets the allocator keep what is freed and use large pages: the kernel would otherwise zero the same pages again at
/// every training step, which costs a fifth of its time.
#[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
pub(crate) fn keep_memory() {
    // SAFETY: both calls store a number in the allocator's table of options; no other thread runs yet.
    unsafe {
        libmimalloc_sys::mi_option_set(ALLOW_LARGE_OS_PAGES, 1);
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
    cavy_ops::kernels::parallel::flush_denormals();
}

/// Lets the allocator give back what is freed, for verbs that promise to stay within a budget.
#[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
pub(crate) fn give_memory_back() {
    // SAFETY: both calls store a number in the allocator's table of options; no other thread runs yet.
    unsafe {
        libmimalloc_sys::mi_option_set(ALLOW_LARGE_OS_PAGES, 0);
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 0);
    }
}

/// Sends the libraries' events to stderr, as `RUST_LOG` says; warnings where it says nothing.
pub(crate) fn subscribe() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}

/// Shows errors as plain, wrapped text with the place in the file, in colour only where that is wanted.
pub(crate) fn explain_errors() {
    // It fails only if a handler is set already, and then errors are shown by that one.
    let _ = miette::set_hook(Box::new(|_| Box::new(miette::MietteHandlerOpts::new().width(110).build())));
}
