// Decode the audio of a segment and draw its waveform and spectrogram.
const FFT_SIZE = 512, COLUMNS = 420, FLOOR_DB = 70;
const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97],
  [254, 194, 135], [252, 253, 191]];

// Transform in place, by the radix-2 algorithm.
function fft(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let length = 2; length <= size; length <<= 1) {
    const half = length >> 1, angle = -2 * Math.PI / length;
    for (let start = 0; start < size; start += length) {
      for (let k = 0; k < half; k++) {
        const cos = Math.cos(angle * k), sin = Math.sin(angle * k), a = start + k, b = a + half;
        const re = real[b] * cos - imaginary[b] * sin, im = real[b] * sin + imaginary[b] * cos;
        real[b] = real[a] - re; imaginary[b] = imaginary[a] - im;
        real[a] += re; imaginary[a] += im;
      }
    }
  }
}

// Return the levels in dB relative to the highest, one array of frequencies for each time.
function spectrogramLevels(samples) {
  const hop = Math.max(FFT_SIZE / 4, Math.ceil(samples.length / COLUMNS)), frames = [];
  let highest = 1e-12;
  for (let start = 0; start < samples.length; start += hop) {
    const real = new Float32Array(FFT_SIZE), imaginary = new Float32Array(FFT_SIZE);
    for (let i = 0; i < FFT_SIZE; i++) {
      const window = 0.5 - 0.5 * Math.cos(2 * Math.PI * i / FFT_SIZE);
      real[i] = (samples[start + i - FFT_SIZE / 2] ?? 0) * window;
    }
    fft(real, imaginary);
    const power = Float32Array.from({ length: FFT_SIZE / 2 }, (_, bin) => real[bin] ** 2 + imaginary[bin] ** 2);
    for (const value of power) highest = Math.max(highest, value);
    frames.push(power);
  }
  return frames.map((power) => power.map((value) => 10 * Math.log10(Math.max(value / highest, 1e-12))));
}

function magma(share) {
  const place = Math.min(Math.max(share, 0), 1) * (MAGMA.length - 1), index = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[index].map((start, channel) => start + (place - index) * (MAGMA[index + 1][channel] - start));
}

function spectrogramImage(samples) {
  const levels = spectrogramLevels(samples), height = FFT_SIZE / 2;
  const image = new ImageData(levels.length, height);
  levels.forEach((frame, x) => frame.forEach((level, bin) => {
    image.data.set([...magma(1 + level / FLOOR_DB), 255], 4 * ((height - 1 - bin) * levels.length + x));
  }));
  const canvas = Object.assign(document.createElement("canvas"), { width: levels.length, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const PLOT = { left: 40, right: 6, wave: 44, gap: 6, bottom: 20 };

// Draw into a canvas at the resolution of the screen, in the color of the text around it.
function drawSound(canvas, samples, rate) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d"), color = getComputedStyle(canvas).color;
  const inner = width - PLOT.left - PLOT.right, top = PLOT.wave + PLOT.gap, lower = height - top - PLOT.bottom;
  context.scale(scale, scale);
  const peak = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0.05);
  context.fillStyle = "#8a8f98";
  for (let x = 0; x < inner; x++) {
    let low = 0, high = 0;
    const end = Math.floor((x + 1) * samples.length / inner);
    for (let i = Math.floor(x * samples.length / inner); i < end; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const middle = PLOT.wave / 2, unit = middle / peak;
    context.fillRect(PLOT.left + x, middle - high * unit, 1, Math.max(1, (high - low) * unit));
  }
  context.drawImage(spectrogramImage(samples), PLOT.left, top, inner, lower);
  context.fillStyle = color;
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    const text = `${(share * rate / 2000).toFixed(share === 0.5 && rate % 4000 ? 1 : 0)}${share === 1 ? " kHz" : ""}`;
    context.fillText(text, PLOT.left - 4, top + (1 - share) * lower + 4 * share + 4);
  }
  const seconds = samples.length / rate;
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    context.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
    context.fillText(`${(share * seconds).toFixed(seconds < 2 ? 2 : 1)} s`, PLOT.left + share * inner, height - 5);
  }
}

// Return a player with a picture of the sound under it; a click on the picture plays from there.
async function soundPanel(blob, rate, label) {
  const decoder = new OfflineAudioContext(1, 1, rate);
  const decoded = await decoder.decodeAudioData(await blob.arrayBuffer());
  const player = Object.assign(document.createElement("audio"), { controls: true, src: URL.createObjectURL(blob) });
  player.setAttribute("aria-label", label);
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `waveform and spectrogram of ${label}`);
  const cursor = Object.assign(document.createElement("i"), { className: "cursor" });
  const picture = Object.assign(document.createElement("div"), { className: "picture" });
  picture.append(canvas, cursor);
  const panel = Object.assign(document.createElement("div"), { className: "sound" });
  panel.append(player, picture);
  const samples = decoded.getChannelData(0), inner = () => canvas.clientWidth - PLOT.left - PLOT.right;
  const redraw = () => panel.isConnected && canvas.clientWidth && drawSound(canvas, samples, rate);
  const move = () => {
    cursor.style.left = `${PLOT.left + Math.min(1, player.currentTime / decoded.duration) * inner()}px`;
    if (!player.paused) requestAnimationFrame(move);
  };
  for (const event of ["play", "seeked", "timeupdate"]) player.addEventListener(event, move);
  picture.addEventListener("click", ({ clientX }) => {
    const share = (clientX - canvas.getBoundingClientRect().left - PLOT.left) / inner();
    player.currentTime = Math.min(Math.max(share, 0), 1) * decoded.duration;
    player.play();
  });
  new ResizeObserver(redraw).observe(canvas);
  return { panel, player };
}
