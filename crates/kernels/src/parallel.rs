//! A pool of threads that runs short parallel regions with little latency.
//!
//! The caller takes part, and workers spin for a moment before they sleep: a training step of a tiny
//! model is hundreds of regions of some microseconds each, too short to wake a thread for.
//!
//! Law: what a region computes must not depend on who runs which task; then results are the same
//! bits for any number of threads. Every kernel splits its work by shape alone.
#![expect(unsafe_code, reason = "hands a borrowed closure and disjoint slices to worker threads")]

use crate::exec::Exec;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::Thread;

/// Loop turns a worker waits for the next region before it sleeps (some tens of microseconds).
const SPINS_BEFORE_SLEEP: usize = 20_000;
/// Most workers the pool will start.
const MAX_WORKERS: usize = 256;

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// One parallel region: tasks `0..count` in equal runs, one for each thread, which takes them one at a time and helps the others when
/// its own are done.
///
/// So the same thread works on the same part of the data in one region after the other, and its core's caches still have it, or at
/// least no other core's have: lines that go back and forth between two cores take up to twice as long.
struct Region {
    task: Task<'static>,
    count: usize,
    next: Vec<Next>,
    running: AtomicUsize,
    failure: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    caller: Thread,
}

/// The first task of a thread's run that nobody has taken, on lines of the cache of its own.
#[repr(align(128))]
struct Next(AtomicUsize);

/// Where run `who` of `of` begins in `count` tasks.
fn start_of_run(count: usize, who: usize, of: usize) -> usize {
    count / of * who + count % of * who / of
}

impl Region {
    fn new(task: Task<'static>, count: usize, threads: usize) -> Self {
        let (next, failure) = (Vec::new(), Mutex::new(None));
        let mut region =
            Self { task, count, next, running: AtomicUsize::new(0), failure, caller: std::thread::current() };
        region.start(task, count, threads);
        region
    }

    /// Makes it a region that nobody has begun.
    fn start(&mut self, task: Task<'static>, count: usize, threads: usize) {
        (self.task, self.count, self.caller) = (task, count, std::thread::current());
        self.next.clear();
        self.next.extend((0..threads).map(|who| Next(AtomicUsize::new(start_of_run(count, who, threads)))));
        *self.running.get_mut() = threads - 1;
    }

    /// What thread `who` does: the caller is 0.
    fn work(&self, who: usize) {
        let runs = self.next.len();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for run in (who..runs).chain(0..who) {
                let end = start_of_run(self.count, run + 1, runs);
                loop {
                    let index = self.next[run].0.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    (self.task)(index);
                }
            }
        }));
        if let Err(panic) = outcome {
            self.next.iter().for_each(|next| next.0.store(self.count, Ordering::Relaxed));
            *lock(&self.failure) = Some(panic);
        }
    }
}

#[derive(Default)]
struct Slot {
    region: Option<Arc<Region>>,
    /// Whether the worker waits to be woken: waking one that spins would be a call of the system for nothing.
    asleep: bool,
}

#[derive(Default)]
struct Mailbox {
    slot: Mutex<Slot>,
    wake: Condvar,
    full: AtomicBool,
}

struct Pool {
    workers: Vec<Arc<Mailbox>>,
    /// The last region, to be used again: a step of a small model has a hundred, each a few allocations that another thread gives back.
    last: Option<Arc<Region>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn pool() -> &'static Mutex<Pool> {
    static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
    POOL.get_or_init(|| Mutex::new(Pool { workers: Vec::new(), last: None }))
}

fn worker(mailbox: &Mailbox, who: usize) {
    flush_denormals();
    loop {
        let mut spins = 0;
        while !mailbox.full.load(Ordering::Acquire) && spins < SPINS_BEFORE_SLEEP {
            std::hint::spin_loop();
            spins += 1;
        }
        let mut slot = lock(&mailbox.slot);
        if slot.region.is_none() {
            // Also where the caller took the region back between the flag and the lock.
            slot.asleep = true;
            slot = mailbox.wake.wait(slot).unwrap_or_else(std::sync::PoisonError::into_inner);
            slot.asleep = false;
        }
        // None where the caller took it back before this thread was awake: the next may come soon.
        let region = slot.region.take();
        mailbox.full.store(false, Ordering::Release);
        drop(slot);
        if let Some(region) = region {
            region.work(who);
            let caller = region.caller.clone();
            if region.running.fetch_sub(1, Ordering::AcqRel) == 1 {
                caller.unpark();
            }
        }
    }
}

/// Runs `task(0)`, ..., `task(count - 1)`, each once, on the threads of `exec`.
///
/// A region inside a region, or beside one of another thread, runs on its caller alone.
///
/// Panics: passes on the first panic of a task, after every thread has left the region.
pub fn for_each(exec: Exec, count: usize, task: impl Fn(usize) + Sync) {
    let helpers = exec.threads().min(count).saturating_sub(1).min(MAX_WORKERS);
    let free = if helpers == 0 { None } else { pool().try_lock().ok() };
    let Some(mut pool) = free else {
        (0..count).for_each(task);
        return;
    };
    while pool.workers.len() < helpers {
        let mailbox = Arc::new(Mailbox::default());
        let (theirs, who) = (Arc::clone(&mailbox), pool.workers.len() + 1);
        let started = std::thread::Builder::new().name("cavy-worker".into()).spawn(move || worker(&theirs, who));
        if started.is_err() {
            break;
        }
        pool.workers.push(mailbox);
    }
    let helpers = helpers.min(pool.workers.len());
    let borrowed: Task<'_> = &task;
    // SAFETY: this function does not return before `running` is zero, that is, before every worker has
    // made its last call of the task; a worker keeps the region longer, but touches only its counters.
    let task: Task<'static> = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(borrowed) };
    let mut last = pool.last.take();
    // A worker may hold it still.
    let region = match last.as_mut().and_then(Arc::get_mut) {
        Some(region) => {
            region.start(task, count, helpers + 1);
            last.expect("it was there")
        }
        None => Arc::new(Region::new(task, count, helpers + 1)),
    };
    for mailbox in &pool.workers[..helpers] {
        let mut slot = lock(&mailbox.slot);
        slot.region = Some(Arc::clone(&region));
        mailbox.full.store(true, Ordering::Release);
        if std::mem::take(&mut slot.asleep) {
            mailbox.wake.notify_one();
        }
    }
    region.work(0);
    // A worker that has not looked yet (its core may be busy with something else) is not waited for.
    for mailbox in &pool.workers[..helpers] {
        if lock(&mailbox.slot).region.take().is_some() {
            mailbox.full.store(false, Ordering::Release);
            region.running.fetch_sub(1, Ordering::AcqRel);
        }
    }
    let mut spins = 0;
    while region.running.load(Ordering::Acquire) > 0 {
        if spins < SPINS_BEFORE_SLEEP {
            std::hint::spin_loop();
            spins += 1;
        } else {
            std::thread::park();
        }
    }
    let failure = lock(&region.failure).take();
    pool.last = Some(region);
    drop(pool);
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
}

/// Splits `data` into chunks of `chunk_len` and runs `task(index, chunk)` on each.
///
/// Panics: if `chunk_len` is 0; passes on a panic of a task.
pub fn for_each_chunk<T: Send>(exec: Exec, data: &mut [T], chunk_len: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let len = data.len();
    let shared = SharedMut::new(data);
    for_each(exec, len.div_ceil(chunk_len), |index| {
        let start = index * chunk_len;
        // SAFETY: chunks of different indices do not overlap, and each index runs once.
        let chunk = unsafe { shared.slice(start, chunk_len.min(len - start)) };
        task(index, chunk);
    });
}

/// A mutable slice that the tasks of one region share, each writing its own part.
#[derive(Debug)]
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose caller promises that parts do not overlap.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Takes the whole slice for as long as the region lasts.
    pub fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), borrow: std::marker::PhantomData }
    }

    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What begins with element `start`.
    ///
    /// Panics: if that is beyond the end.
    ///
    /// # Safety
    /// No two live slices of this or the original may overlap.
    pub(crate) unsafe fn from(&self, start: usize) -> Self {
        assert!(start <= self.len, "{start} of {}", self.len);
        // SAFETY: in bounds by the check above.
        Self { start: unsafe { self.start.add(start) }, len: self.len - start, borrow: std::marker::PhantomData }
    }

    /// Where the slice starts, for code that writes a strided part of it.
    pub fn as_mut_ptr(&self) -> *mut T {
        self.start
    }

    /// The elements `start..start + len`.
    ///
    /// Panics: if they are out of bounds.
    ///
    /// # Safety
    /// No two live slices may overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller promises disjoint parts")]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{start}+{len} of {}", self.len);
        // SAFETY: in bounds by the check above, disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// Makes the calling thread treat denormal numbers as zero, in operands and results.
///
/// Arithmetic on denormals is up to a hundred times slower, and gradients reach them. The pool's
/// threads do this themselves; a program calls it once on its main thread.
pub fn flush_denormals() {
    #[cfg(target_arch = "x86_64")]
    set_vector_control(vector_control() | FLUSH);
    #[cfg(target_arch = "aarch64")]
    {
        let mut control: u64;
        // SAFETY: only the flush-to-zero bit (24) of FPCR changes.
        unsafe {
            std::arch::asm!("mrs {0}, fpcr", out(reg) control, options(nostack));
            control |= 1 << 24;
            std::arch::asm!("msr fpcr, {0}", in(reg) control, options(nostack));
        }
    }
}

/// Bits of the control word of vector arithmetic: results (bit 15) and operands (bit 6) that are denormal become zero.
#[cfg(target_arch = "x86_64")]
const FLUSH: u32 = 0x8040;

#[cfg(target_arch = "x86_64")]
fn vector_control() -> u32 {
    let mut control: u32 = 0;
    let address = &raw mut control;
    // SAFETY: SSE is part of x86-64.
    unsafe { std::arch::asm!("stmxcsr [{0}]", in(reg) address, options(nostack)) };
    control
}

/// Takes a control word as it was read, but for [`FLUSH`].
#[cfg(target_arch = "x86_64")]
fn set_vector_control(control: u32) {
    let address = &raw const control;
    // SAFETY: SSE is part of x86-64; what is not in [`FLUSH`] stays as it was.
    unsafe { std::arch::asm!("ldmxcsr [{0}]", in(reg) address, options(nostack)) };
}

/// What the calling thread does with denormal numbers, until this is dropped.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(crate) struct Denormals {
    before: u32,
}

#[cfg(target_arch = "x86_64")]
impl Denormals {
    /// They are zero.
    pub(crate) fn flushed() -> Self {
        let before = vector_control();
        set_vector_control(before | FLUSH);
        Self { before }
    }

    /// They are numbers.
    pub(crate) fn kept() -> Self {
        let before = vector_control();
        set_vector_control(before & !FLUSH);
        Self { before }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Denormals {
    fn drop(&mut self) {
        set_vector_control(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 5] {
            for count in [0, 1, 2, 17, 1000] {
                let mut seen = vec![0_u8; count];
                for_each_chunk(Exec::new(threads), &mut seen, 3, |_, chunk| chunk.iter_mut().for_each(|x| *x += 1));
                assert!(seen.iter().all(|&x| x == 1));
            }
        }
    }

    #[test]
    fn threads_keep_to_their_own_part() {
        for (count, of) in [(0, 3), (2, 5), (17, 4), (usize::MAX, 256)] {
            let starts: Vec<usize> = (0..=of).map(|who| start_of_run(count, who, of)).collect();
            assert!(starts[0] == 0 && starts[of] == count && starts.is_sorted());
            assert!(starts.windows(2).all(|run| run[1] - run[0] <= count.div_ceil(of)), "{count} tasks of {of}");
        }
        let order = Mutex::new(Vec::new());
        let task: Task<'_> = &|index| lock(&order).push(index);
        // SAFETY: the region ends before what it borrows.
        let task: Task<'static> = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        Region::new(task, 8, 3).work(1);
        assert_eq!(*lock(&order), [2, 3, 4, 5, 6, 7, 0, 1], "its own, then those of others");
    }

    #[test]
    fn a_region_inside_a_region_finishes() {
        let total = AtomicUsize::new(0);
        let exec = Exec::new(2);
        for_each(exec, 4, |_| {
            for_each(exec, 5, |_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 20);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn denormals_are_what_is_asked_for_and_then_what_they_were() {
        let half = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
        let before = half();
        for _ in 0..2 {
            let flushed = Denormals::flushed();
            assert_eq!(half(), 0.0);
            let kept = Denormals::kept();
            assert!(half() > 0.0);
            drop(kept);
            assert_eq!(half(), 0.0);
            drop(flushed);
        }
        assert_eq!(half(), before);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        let exec = Exec::new(2);
        let outcome = catch_unwind(|| for_each(exec, 8, |index| assert!(index != 5, "task five")));
        assert!(outcome.is_err());
        for_each(exec, 8, |_| ());
    }
}
