//! `dpq serve`: searches and changes over HTTP.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use dpq_model::Model;
use dpq_model::config::Body;
use dpq_server::{Catalog, Features, Gallery, Limits, Options, Server};
use serde_json::json;
use signal_hook::consts::SIGTERM;

use crate::gallery::{map, writer};
use crate::pictures::{Pictures, draw_map};
use crate::{images, output};

/// Serve an index over HTTP: searches, and changes of a live index
///
/// Prints the address and answers until Ctrl-C. /openapi.json describes the requests. While a live
/// index is served, no other program changes it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq serve gallery.dpq\n  dpq serve photos.live --model model.safetensors\n  \
        dpq serve gallery.live --listen 0.0.0.0:8080 --token-file token"
)]
pub(crate) struct Args {
    /// The index file, or the folder of a live index
    gallery: PathBuf,
    /// The model that made the codes. Its beam encodes the features of new items, as `dpq features
    /// --model` writes them. If it is a model of images, requests can send images
    #[arg(long, value_name = "SAFETENSORS")]
    model: Option<PathBuf>,
    /// Pictures and classes for the page: the folder or archive of the images that the gallery's
    /// names lead to, or a data set folder, whose rows are ids
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// Names of the ids of an index file, one line each, as `dpq encode` writes them
    #[arg(long, value_name = "TXT")]
    names: Option<PathBuf>,
    /// Address to listen at; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// File of the token that requests need to change the gallery. Addresses that other machines
    /// reach need one
    #[arg(long, value_name = "TXT")]
    token_file: Option<PathBuf>,
    /// Maximum size of a request
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body)]
    max_body: usize,
    /// Maximum pixels of an image in a request, and of a file to make a picture of
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    max_pixels: u64,
    /// Maximum time to receive a request, and to answer it
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_seconds: u64,
    /// Requests that wait for a thread; further ones are refused
    #[arg(long, value_name = "N", default_value_t = Limits::default().waiting)]
    max_waiting: usize,
    /// Write requests, commits and merges to stderr, a line each
    #[arg(long, value_name = "FORM")]
    log: Option<Log>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Log {
    Text,
    Json,
}

impl Log {
    fn start(self) {
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_ansi(false);
        match self {
            Self::Text => log.init(),
            Self::Json => log.json().flatten_event(true).init(),
        }
    }
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        if let Some(log) = self.log {
            log.start();
        }
        let gallery = if self.gallery.is_dir() {
            Gallery::Live(Box::new(writer(&self.gallery)?))
        } else {
            Gallery::File(Box::new(map(&self.gallery)?))
        };
        let codebooks = match &gallery {
            Gallery::File(index) => index.codebooks(),
            Gallery::Live(live) => live.codebooks(),
        };
        let limits = Limits {
            body: self.max_body,
            time: Duration::from_secs(self.max_seconds),
            waiting: self.max_waiting,
            ..Limits::default()
        };
        ensure!(
            self.names.is_none() || matches!(gallery, Gallery::File(_)),
            "a live index has names of its own, leave out --names"
        );
        let is_known = self.images.is_some() || self.names.is_some();
        let (images, names) = (self.images.as_deref(), self.names.as_deref());
        let pictures = is_known.then(|| Pictures::open(images, names, self.max_pixels));
        let catalog = pictures.transpose()?.map(|pictures| Box::new(pictures) as Box<dyn Catalog>);
        let (token, map, threads) = (self.token()?, Some(draw_map()), rayon::current_num_threads());
        let mut options = Options { token, catalog, map, limits, ..Options::new(threads) };
        if let Some(path) = &self.model {
            let model = Model::open(path)?;
            images::check_model(&model, codebooks)?;
            options.beam = model.config().quantizer.beam;
            if model.config().network.body == Body::Features {
                output::note(
                    "requests send features as `dpq features --model` writes them (for searches by a model \
                        of pairs, with --queries), since the server maps none",
                );
            } else {
                options.features = Some(model_features(model, self.max_pixels)?);
            }
        }
        serve(json, gallery, options, bind(self.listen)?)
    }

    /// Reads the token: the text of its file, without a line break at the end.
    fn token(&self) -> Result<Option<String>> {
        let read = |path: &PathBuf| {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.trim_end().to_owned())
        };
        self.token_file.as_ref().map(read).transpose()
    }
}

/// The default of the maximum pixels of an image.
pub(crate) const MAX_PIXELS: u64 = 50_000_000;

pub(crate) fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).with_context(|| format!("cannot listen at {listen}"))
}

/// Serves a gallery until Ctrl-C or a signal to end.
pub(crate) fn serve(json: bool, gallery: Gallery, options: Options, listener: TcpListener) -> Result<()> {
    let stop = output::stop_flag()?;
    signal_hook::flag::register(SIGTERM, stop.clone()).context("cannot handle the signal to end")?;
    let address = listener.local_addr().context("cannot read the address of the listener")?;
    let server = Server::new(listener, gallery, options)?;
    let (connections, most) = (server.connections(), Limits::default().connections);
    let few = if connections < most {
        format!(", at most {connections} connections, as this process may open few files")
    } else {
        String::new()
    };
    let printed = json!({ "address": address, "connections": connections });
    output::print(json, &printed, &format!("serving http://{address}{few}"))?;
    Ok(server.run(&stop)?)
}

/// Returns the function that makes features of images by a model.
pub(crate) fn model_features(model: Model, max_pixels: u64) -> Result<Box<Features>> {
    let shape = images::model_shape(&model)?;
    Ok(Box::new(move |bytes| {
        let text = |error: Error| format!("{error:#}");
        let pixels =
            dpq_data::read_image_bytes(bytes, shape, max_pixels).map_err(|error| text(error.into()))?;
        Ok(model.forward(&pixels).map_err(|error| text(error.into()))?.features)
    }))
}
