// Recording from camera and microphone; nothing is sent before the user presses "Score".
import { byId } from "./elements.js";
import { strings } from "./strings.js";

const TYPES = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];
const SOUND_TYPES = ["audio/webm;codecs=opus", "audio/webm", "audio/mp4"];

export function prepareRecorder(onRecorded, say, report) {
  let recorder = null;

  async function start(video) {
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      report(new Error(strings.recordImpossible));
      return;
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true, video });
    } catch {
      report(new Error(strings.recordRefused));
      return;
    }
    const type = (video ? TYPES : SOUND_TYPES).find(kind => MediaRecorder.isTypeSupported(kind));
    recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    const parts = [];
    const started = performance.now();
    const seconds = () => Math.round((performance.now() - started) / 1000);
    const clock = setInterval(() => say(strings.recording(seconds())), 1000);
    recorder.addEventListener("dataavailable", event => parts.push(event.data));
    recorder.addEventListener("stop", () => {
      clearInterval(clock);
      for (const track of stream.getTracks()) track.stop();
      const kind = recorder.mimeType.split(";")[0];
      const suffix = kind.endsWith("mp4") ? "mp4" : "webm";
      onRecorded(new File(parts, `recording.${suffix}`, { type: kind }));
      say(strings.recorded(seconds()));
      show(false, video);
      byId("preview").srcObject = null;
    });
    if (video) byId("preview").srcObject = stream;
    recorder.start(1000);
    say(strings.recording(0));
    show(true, video);
    if (video) byId("preview").play().catch(() => {});
  }

  function show(isRecording, video) {
    byId("record-video").hidden = byId("record-audio").hidden = isRecording;
    byId("record-stop").hidden = !isRecording;
    byId("preview").hidden = !(isRecording && video);
    byId(isRecording ? "record-stop" : "record-video").focus();
  }

  byId("record-video").addEventListener("click", () => start(true));
  byId("record-audio").addEventListener("click", () => start(false));
  byId("record-stop").addEventListener("click", () => recorder?.stop());
}
