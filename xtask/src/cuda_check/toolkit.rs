//! A CUDA toolkit that needs no GPU and no driver: NVIDIA's compilers from PyPI, and stub
//! libraries.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};

use crate::process::{cargo, packages, remove, run};

/// The wheels, each with the hash of its file.
const REQUIREMENTS: &str = "xtask/src/cuda_check/requirements.txt";

/// Real libraries that programs link with. They need no driver.
const LIBRARIES: [(&str, &str); 2] = [("cudart", "libcudart.so.13"), ("nvrtc", "libnvrtc.so.13")];

/// Libraries that are large or come with the driver: name, module of cudarc that calls it, and the
/// file that a program loads.
const STUBS: [(&str, &str, &str); 4] = [
    ("cuda", "driver", "libcuda.so.1"),
    ("cublas", "cublas", "libcublas.so.13"),
    ("cublasLt", "cublaslt", "libcublasLt.so.13"),
    ("curand", "curand", "libcurand.so.10"),
];

/// Return value of each function of a stub: CUDA_ERROR_NO_DEVICE.
const NO_DEVICE: u32 = 100;

pub(super) struct Toolkit {
    /// Absolute, since cargo runs compilers in other folders.
    folder: PathBuf,
    home: PathBuf,
}

impl Toolkit {
    /// Sets the toolkit up in a folder and downloads missing files.
    pub(super) fn set_up(folder: &str) -> Result<Self> {
        ensure!(
            cfg!(all(target_os = "linux", target_arch = "x86_64")),
            "cuda-check needs x86-64 Linux: the compilers of {REQUIREMENTS} are for it"
        );
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
        let folder = Path::new(folder).canonicalize()?;
        let toolkit = Self { home: folder.join("toolkit/nvidia/cu13"), folder };
        toolkit.install()?;
        toolkit.add_libraries()?;
        Ok(toolkit)
    }

    fn install(&self) -> Result<()> {
        let (wheels, requirements) = (self.folder.join("toolkit"), fs::read(REQUIREMENTS)?);
        // Copied there after everything is installed.
        let installed = wheels.join("requirements.txt");
        if fs::read(&installed).is_ok_and(|found| found == requirements) {
            return Ok(());
        }
        remove(&wheels)?;
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"];
        let mut install = Command::new("python3");
        run(install.args(pip).args(["--requirement", REQUIREMENTS, "--target"]).arg(wheels))?;
        Ok(fs::write(installed, requirements)?)
    }

    /// Adds the library names that linkers look for. The wheels lack them.
    fn add_libraries(&self) -> Result<()> {
        let (lib, stubs) = (self.home.join("lib"), self.stubs());
        fs::create_dir_all(&stubs)?;
        // A linker script instead of a link.
        let named =
            |dir: &Path, name, file| fs::write(dir.join(format!("lib{name}.so")), format!("INPUT({file})\n"));
        for (name, file) in LIBRARIES {
            named(&lib, name, file)?;
        }
        let cudarc = source_of("cudarc")?;
        for (name, module, file) in STUBS {
            named(&stubs, name, file)?;
            let bindings = cudarc.join(format!("src/{module}/sys/mod.rs"));
            let bindings = fs::read_to_string(&bindings)
                .with_context(|| format!("cannot read {}", bindings.display()))?;
            let source = stubs.join(format!("{name}.c"));
            fs::write(&source, stub(&bindings))?;
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-w", &format!("-Wl,-soname,{file}"), "-o"]);
            run(cc.arg(stubs.join(file)).arg(source))?;
        }
        Ok(())
    }

    fn stubs(&self) -> PathBuf {
        self.home.join("lib/stubs")
    }

    /// Returns a command of nvcc for the GPU of the measurements in docs/cuda.md.
    pub(super) fn nvcc(&self) -> Command {
        let mut nvcc = Command::new(self.home.join("bin/nvcc"));
        nvcc.arg("--gpu-architecture=sm_90");
        nvcc
    }

    /// Returns a command of cargo with this toolkit and a separate target folder.
    pub(super) fn cargo(&self, args: &[&str]) -> Result<Command> {
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.home.join("bin")].into_iter().chain(env::split_paths(&path)))?;
        let mut command = self.load(cargo(args));
        command
            .env("PATH", path)
            .env("CUDA_HOME", &self.home)
            .env("CUDA_COMPUTE_CAP", "90")
            .env("CARGO_TARGET_DIR", self.folder.join("build"))
            // candle's kernels for quantised weights, which dpq never calls, take half of the time.
            // Without optimisation they take half as long.
            .env("NVCC_APPEND_FLAGS", "-Xcicc -O0 -Xptxas -O0")
            .env("CUDAFORGE_THREADS", available_parallelism()?.to_string());
        Ok(command)
    }

    /// Makes the command find the libraries of this toolkit when it starts.
    pub(super) fn load(&self, mut command: Command) -> Command {
        let paths = [self.home.join("lib"), self.stubs()].map(|path| path.to_string_lossy().into_owned());
        command.env("LD_LIBRARY_PATH", paths.join(":"));
        command
    }
}

/// Returns the folder of the sources of a dependency.
fn source_of(package: &str) -> Result<PathBuf> {
    let packages = packages(&["--features=dpq/cuda"])?;
    let found = packages.iter().find(|found| found["name"] == package);
    let manifest = found.and_then(|found| found["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("nothing here depends on {package}"))?;
    Ok(Path::new(manifest).with_file_name(""))
}

/// Returns C code of the functions that the bindings call. Each finds no GPU.
fn stub(bindings: &str) -> String {
    let lines = bindings.lines().filter_map(|line| line.strip_prefix("pub unsafe fn "));
    let names: BTreeSet<&str> = lines.filter_map(|line| line.split('(').next()).collect();
    names.iter().map(|name| format!("int {name}(void) {{ return {NO_DEVICE}; }}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_have_each_function_once() {
        let bindings = "pub unsafe fn cuInit(Flags: c_uint) -> CUresult {\n    fn cuInit(Flags: c_uint);\n}\n\
            #[cfg(any(feature = \"cuda-13000\"))]\npub unsafe fn cuCtxCreate_v4(\n    ctx: *mut CUcontext,\n) {}\n\
            pub unsafe fn cuInit(Flags: c_uint) -> CUresult {}\n";
        let expected = "int cuCtxCreate_v4(void) { return 100; }\nint cuInit(void) { return 100; }\n";
        assert_eq!(stub(bindings), expected);
    }
}
