//! The system calls that open or change files. The standard library of this program calls the
//! functions below in place of those of the C library.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use libc::{EIO, ENOSPC, RTLD_NEXT, SIGKILL};

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It fails, and later ones succeed.
    Fail,
    /// It fails, and so do all later ones.
    FailFromNowOn,
    /// The process ends.
    Kill,
}

/// A call that changes what a crash leaves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Write(PathBuf),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Copy)]
struct Plan {
    /// Calls that succeed first.
    n_left: usize,
    fate: Fate,
    is_reached: bool,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    /// Calls of this thread by function.
    static SEEN: Cell<[usize; 6]> = const { Cell::new([0; 6]) };
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
}

/// Returns the calls that `work` makes in this thread.
pub(crate) fn events(work: impl FnOnce()) -> Vec<Event> {
    EVENTS.replace(Some(Vec::new()));
    work();
    EVENTS.take().unwrap()
}

fn record(event: impl FnOnce() -> Event) {
    EVENTS.with_borrow_mut(|events| {
        if let Some(events) = events {
            events.push(event());
        }
    });
}

fn path(text: *const c_char) -> PathBuf {
    // SAFETY: the caller of a function of the C library gives a string.
    OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()).into()
}

fn path_of(file: c_int) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap()
}

/// Plans what happens in this thread after `n_left` calls.
pub(crate) fn plan(n_left: usize, fate: Fate) {
    PLAN.set(Some(Plan { n_left, fate, is_reached: false }));
}

/// Lets all calls succeed. Returns false if the planned one was not reached.
pub(crate) fn reset() -> bool {
    PLAN.take().is_some_and(|plan| plan.is_reached)
}

/// Returns the calls of this thread so far, by function.
pub(crate) fn seen() -> [usize; 6] {
    SEEN.get()
}

/// Counts a call, and returns its fate.
fn fate(function: usize) -> Option<Fate> {
    let mut seen = SEEN.get();
    seen[function] += 1;
    SEEN.set(seen);
    let mut plan = PLAN.get()?;
    let (is_due, is_again) = (plan.n_left == 0, plan.is_reached);
    plan.n_left = plan.n_left.saturating_sub(1);
    plan.is_reached = is_due;
    PLAN.set(Some(plan));
    (is_due && (!is_again || plan.fate == Fate::FailFromNowOn)).then_some(plan.fate)
}

/// Makes a call, unless it is to fail.
fn call<T>(function: usize, failed: T, error: c_int, call: impl FnOnce() -> T) -> T {
    match fate(function) {
        None => call(),
        Some(Fate::Kill) => kill(),
        Some(_) => fail(failed, error),
    }
}

fn kill() -> ! {
    // SAFETY: the signal ends this process.
    unsafe { libc::kill(libc::getpid(), SIGKILL) };
    unreachable!("the process was killed")
}

fn fail<T>(failed: T, error: c_int) -> T {
    // SAFETY: it points to a number of this thread.
    unsafe { *libc::__errno_location() = error };
    failed
}

/// Returns the function of the C library.
fn of_libc(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a string, and the C library is loaded.
    let function = unsafe { libc::dlsym(RTLD_NEXT, name.as_ptr()) };
    assert!(!function.is_null(), "{name:?}");
    function
}

macro_rules! of_libc {
    ($name:literal as $type:ty) => {
        // SAFETY: this is the function's type.
        unsafe { std::mem::transmute::<*mut c_void, $type>(of_libc($name)) }
    };
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let real = of_libc!(c"open64" as extern "C" fn(*const c_char, c_int, ...) -> c_int);
    call(0, -1, EIO, || real(path, flags, mode))
}

#[unsafe(no_mangle)]
extern "C" fn write(file: c_int, bytes: *const c_void, n: usize) -> isize {
    let real = of_libc!(c"write" as extern "C" fn(c_int, *const c_void, usize) -> isize);
    let is_standard = file <= 2;
    let fate = if is_standard { None } else { fate(1) };
    if fate.is_none() {
        if !is_standard {
            record(|| Event::Write(path_of(file)));
        }
        return real(file, bytes, n);
    }
    real(file, bytes, n / 2);
    if fate == Some(Fate::Kill) { kill() } else { fail(-1, ENOSPC) }
}

#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    let real = of_libc!(c"fsync" as extern "C" fn(c_int) -> c_int);
    record(|| Event::Sync(path_of(file)));
    call(2, -1, EIO, || real(file))
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let real = of_libc!(c"rename" as extern "C" fn(*const c_char, *const c_char) -> c_int);
    record(|| Event::Rename(path(from), path(to)));
    call(3, -1, EIO, || real(from, to))
}

#[unsafe(no_mangle)]
extern "C" fn unlink(file: *const c_char) -> c_int {
    let real = of_libc!(c"unlink" as extern "C" fn(*const c_char) -> c_int);
    record(|| Event::Remove(path(file)));
    call(4, -1, EIO, || real(file))
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let real = of_libc!(c"mkdir" as extern "C" fn(*const c_char, c_uint) -> c_int);
    call(5, -1, ENOSPC, || real(path, mode))
}
