//! Files of zip and tar archives, read where they lie.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use flate2::Crc;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use tar::EntryType;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::Error;

/// The maximum size of a member in bytes, as much as image decoders may take.
const MAX_MEMBER: u64 = 1 << 29;

/// The maximum size of an unpacked .tar.gz archive, which is held in memory.
const MAX_MEMORY: u64 = 1 << 32;

/// An archive. Opening reads its directory, reading a member reads nothing else, in any number of
/// threads.
pub(crate) struct Archive {
    path: PathBuf,
    /// By path, which begins with that of the archive.
    members: BTreeMap<PathBuf, Member>,
    /// The bytes that `members` count in, if they are not those of the file.
    memory: Option<Vec<u8>>,
}

struct Member {
    start: u64,
    stored: u64,
    len: u64,
    is_deflated: bool,
    crc32: Option<u32>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Archive {
    /// Reads the directory of a zip or tar archive, or the whole of a .tar.gz archive.
    ///
    /// Hidden files are left out. Members that no archive of images needs are refused: paths that
    /// lead out of the archive, two of one name, encrypted ones, links, and huge ones.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut archive = Self { path: path.to_owned(), members: BTreeMap::new(), memory: None };
        archive.read_directory(&mut file).map_err(|error| error.in_file(path))?;
        Ok(archive)
    }

    fn read_directory(&mut self, file: &mut File) -> Result<(), Error> {
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).map_err(Error::Damaged)?;
        file.rewind().map_err(Error::Damaged)?;
        if start.starts_with(b"PK") {
            self.read_zip(file)
        } else if start.starts_with(&[0x1f, 0x8b]) {
            self.read_tar_gz(file)
        } else if start.get(257..262) == Some(b"ustar") {
            self.read_tar(file)
        } else {
            Err(Error::invalid("not an archive that can be read", "expected a .zip, .tar or .tar.gz file"))
        }
    }

    fn read_zip(&mut self, file: &File) -> Result<(), Error> {
        let n_bytes = file.metadata().map_err(Error::Damaged)?.len();
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(error.into()))?;
        for i in 0..zip.len() {
            let raw = zip.by_index_raw(i).map_err(|error| damaged(error.into()))?;
            if raw.is_dir() {
                continue;
            }
            // Programs that write UTF-8 do not always say so.
            let name = String::from_utf8(raw.name_raw().to_owned()).unwrap_or_else(|_| raw.name().to_owned());
            let is_link = raw.unix_mode().is_some_and(|mode| mode & 0o170_000 == 0o120_000);
            let member = Member {
                start: raw.data_start(),
                stored: raw.compressed_size(),
                len: raw.size(),
                is_deflated: raw.compression() == CompressionMethod::Deflated,
                crc32: Some(raw.crc32()),
            };
            drop(raw);
            let Some(path) = self.path_of(&name, is_link)? else { continue };
            if let Err(error) = zip.by_index(i) {
                return Err(match error {
                    ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
                        Error::invalid(format!("`{name}` is encrypted"), "pack the images without a password")
                    }
                    ZipError::UnsupportedArchive(_) => Error::invalid(
                        format!("`{name}` is packed in a way that cannot be read"),
                        "expected stored or deflated files",
                    ),
                    error => damaged(error.into()),
                });
            }
            self.add(&name, path, member, n_bytes)?;
        }
        Ok(())
    }

    fn read_tar(&mut self, file: &mut File) -> Result<(), Error> {
        let n_bytes = file.seek(SeekFrom::End(0)).map_err(Error::Damaged)?;
        // An archive ends in blocks of zeros, so one that is cut off does not.
        let mut end = [1; 512];
        file.seek(SeekFrom::Start(n_bytes.saturating_sub(512))).map_err(Error::Damaged)?;
        file.read_exact(&mut end).map_err(Error::Damaged)?;
        if end != [0; 512] {
            return Err(damaged(io::Error::other("the end is missing")));
        }
        file.rewind().map_err(Error::Damaged)?;
        for entry in tar::Archive::new(file).entries_with_seek().map_err(Error::Damaged)? {
            let entry = entry.map_err(Error::Damaged)?;
            let Some((name, path)) = self.tar_path(&entry)? else { continue };
            let (start, len) = (entry.raw_file_position(), entry.size());
            self.add(
                &name,
                path,
                Member { start, stored: len, len, is_deflated: false, crc32: None },
                n_bytes,
            )?;
        }
        Ok(())
    }

    fn read_tar_gz(&mut self, file: &File) -> Result<(), Error> {
        let mut memory = Vec::new();
        let unpacked = MultiGzDecoder::new(BufReader::new(file)).take(MAX_MEMORY + 1);
        let mut tar = tar::Archive::new(unpacked);
        for entry in tar.entries().map_err(Error::Damaged)? {
            let mut entry = entry.map_err(Error::Damaged)?;
            let Some((name, path)) = self.tar_path(&entry)? else { continue };
            let start = memory.len() as u64;
            let n_bytes = start.saturating_add(entry.size());
            let member =
                Member { start, stored: entry.size(), len: entry.size(), is_deflated: false, crc32: None };
            self.add(&name, path, member, n_bytes)?;
            entry.read_to_end(&mut memory).map_err(Error::Damaged)?;
            if memory.len() as u64 != n_bytes {
                return Err(damaged(io::Error::other("the end is missing")));
            }
        }
        // The checksum is at the end.
        let mut rest = tar.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(Error::Damaged)?;
        if rest.limit() == 0 {
            return Err(Error::invalid("more than 4 GiB when unpacked", "pack the images as .zip or .tar"));
        }
        self.memory = Some(memory);
        Ok(())
    }

    /// Returns the name and the path of a member of a tar archive; none for folders.
    fn tar_path<R: Read>(&self, entry: &tar::Entry<'_, R>) -> Result<Option<(String, PathBuf)>, Error> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
            return Ok(None);
        }
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|error| Error::Name(String::from_utf8_lossy(error.as_bytes()).into_owned().into()))?;
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        Ok(self.path_of(&name, !is_file)?.map(|path| (name, path)))
    }

    /// Returns the path of a member; none for files that systems hide.
    fn path_of(&self, name: &str, is_link: bool) -> Result<Option<PathBuf>, Error> {
        let parts = || Path::new(name).components().filter(|part| *part != Component::CurDir);
        if name.contains(['\\', '\0']) || !parts().all(|part| matches!(part, Component::Normal(_))) {
            let remedy = "pack the images again, with paths below one folder and / between folders";
            return Err(Error::invalid(
                format!("`{}` leads out of the archive", name.escape_debug()),
                remedy,
            ));
        }
        // Names are written one per line, to names.txt and into the checksum of names.
        if name.contains(['\n', '\r']) {
            return Err(Error::Name(name.into()));
        }
        let hidden = |part: Component<'_>| {
            let part = part.as_os_str().to_string_lossy();
            part.starts_with('.') || part == "__MACOSX"
        };
        if parts().any(hidden) {
            return Ok(None);
        }
        if is_link {
            let found = format!("`{name}` is no file but a link or a device");
            return Err(Error::invalid(
                found,
                "pack the files themselves (tar --dereference --hard-dereference)",
            ));
        }
        Ok(Some(self.path.join(parts().collect::<PathBuf>())))
    }

    fn add(&mut self, name: &str, path: PathBuf, member: Member, n_bytes: u64) -> Result<(), Error> {
        if member.start.checked_add(member.stored).is_none_or(|end| end > n_bytes) {
            return Err(damaged(io::Error::other(format!("`{name}` ends after the archive"))));
        }
        if member.len > MAX_MEMBER {
            let found = format!("`{name}` has {} bytes", member.len);
            return Err(Error::invalid(found, format!("expected at most {MAX_MEMBER} for an image")));
        }
        match self.members.insert(path, member) {
            Some(_) => {
                Err(Error::invalid(format!("`{name}` is in the archive twice"), "expected each file once"))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.members.contains_key(path)
    }

    /// Returns the folders and the files in the folder `dir`, each in the order of their names.
    pub(crate) fn list(&self, dir: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut folders, mut files): (Vec<PathBuf>, _) = (vec![], vec![]);
        // Paths are ordered by their parts, so those of a folder follow each other.
        let members = self.members.range(dir.to_owned()..).map(|(path, _)| path);
        for path in members.take_while(|path| path.starts_with(dir)) {
            let mut parts = path.strip_prefix(dir).unwrap_or(path).components();
            let Some(first) = parts.next() else { continue };
            if parts.next().is_none() {
                files.push(path.clone());
            } else if folders.last().is_none_or(|last| last.file_name() != Some(first.as_os_str())) {
                folders.push(dir.join(first));
            }
        }
        (folders, files)
    }

    /// Reads a member and compares it with its checksum if it has one.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let not_found = || io::Error::new(io::ErrorKind::NotFound, "the archive has no such file");
        let Member { start, stored, len, is_deflated, crc32 } =
            self.members.get(path).ok_or_else(not_found)?;
        let mut bytes = Vec::new();
        if let Some(memory) = &self.memory {
            bytes.extend_from_slice(&memory[*start as usize..][..*stored as usize]);
        } else {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(*start))?;
            let file = file.take(*stored);
            // A member may unpack to more than it claims.
            match is_deflated {
                true => DeflateDecoder::new(file).take(len + 1).read_to_end(&mut bytes)?,
                false => file.take(len + 1).read_to_end(&mut bytes)?,
            };
        }
        let mut crc = Crc::new();
        crc.update(&bytes);
        if bytes.len() as u64 != *len || crc32.is_some_and(|crc32| crc32 != crc.sum()) {
            return Err(damaged_member());
        }
        Ok(bytes)
    }
}

fn damaged(error: io::Error) -> Error {
    Error::Damaged(error)
}

fn damaged_member() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its checksum or length is wrong, get the archive again")
}
