// The denoising time of every film on the page; pictures of one frame ignore it.
const time = (window.filmTime ??= { t: null, films: new Map() }); // root element → what shows its frame at t

function setTime(t) {
  time.t = t;
  for (const show of time.films.values()) show(t);
}

function join(root, show) {
  time.films.set(root, show);
  show(time.t);
  return () => time.films.get(root) === show && time.films.delete(root);
}

// The frame whose timestep is nearest to t, so that films of different numbers of steps run together.
function frameAt(timesteps, t) {
  if (t === null) return 0;
  return timesteps.reduce((best, at, k) => (Math.abs(at - t) < Math.abs(timesteps[best] - t) ? k : best), 0);
}
