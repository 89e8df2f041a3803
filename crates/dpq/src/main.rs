//! The program `dpq`: the command of the library.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    if env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        #[expect(unsafe_code)]
        unsafe {
            env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
    dpq::run(env::args_os()).into()
}
