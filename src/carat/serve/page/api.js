// Requests to the server. The token stays in this tab.
import { strings } from "./strings.js";

const KEY = "carat-token";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const setToken = token => sessionStorage.setItem(KEY, token);

export const headers = () => {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
};

async function reasonOf(response) {
  try {
    return (await response.json()).error ?? strings.noJson;
  } catch {
    return strings.noJson;
  }
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(strings.unreachable, 0);
  }
  if (!response.ok) throw new ApiError(await reasonOf(response), response.status);
  return response;
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function postJson(path, body) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await request(path, options)).json();
}

// Upload a form; `onProgress` is called with the share that is sent. `fetch` cannot tell it.
export function upload(path, form, signal, onProgress) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", path);
    for (const [name, value] of Object.entries(headers())) sending.setRequestHeader(name, value);
    sending.responseType = "json";
    sending.upload.addEventListener("progress", event => { if (event.lengthComputable) onProgress(event.loaded / event.total); });
    sending.addEventListener("load", () => {
      if (sending.status < 300 && sending.response) resolve(sending.response);
      else reject(new ApiError(sending.response?.error ?? strings.noJson, sending.status));
    });
    sending.addEventListener("error", () => reject(new ApiError(strings.unreachable, 0)));
    sending.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal.addEventListener("abort", () => sending.abort());
    sending.send(form);
  });
}

// Follow server-sent events until the stream ends; returns the last state. `EventSource` sends no token.
export async function follow(path, signal, onStatus) {
  const reader = (await request(path, { signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let last = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return last;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find(line => line.startsWith("data: "));
      if (!event.startsWith("event: status") || !data) continue;
      last = JSON.parse(data.slice(6));
      onStatus(last);
    }
  }
}

// Save content as a file of the browser's downloads.
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
