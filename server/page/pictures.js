// Pictures for models with eyes: scaled down to what the model can make out before they are kept or sent, drawn without
// markup or addresses, taken with a camera.

import { $, button, el } from "./dom.js";
import { served } from "./model.js";

const SIDE = 1024; // where the server does not tell how much the model makes out
const QUALITY = 0.92;
const MAX_SHOWN = 320; // px of the longer side in the conversation

/** The longer side to send: twice what the model makes out, so that scaling it down again costs nothing. */
const longest = () => 2 * (served.imageSide || SIDE);

/** What is kept of a file: name and data: URL, turned as its EXIF data say, on white. Null where it is no picture. */
export async function readPicture(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const small = Math.max(bitmap.width, bitmap.height) <= longest();
    return { name: file.name, url: scaled(bitmap, small && file.type === "image/png" ? "image/png" : "image/jpeg") };
  } catch {
    return null;
  }
}

function scaled(image, type) {
  const [width, height] = [image.width || image.videoWidth, image.height || image.videoHeight];
  const part = Math.min(1, longest() / Math.max(width, height));
  const canvas = el("canvas", { width: Math.max(1, width * part), height: Math.max(1, height * part) });
  const drawing = canvas.getContext("2d");
  drawing.fillStyle = "#fff";
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.imageSmoothingQuality = "high";
  drawing.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL(type, QUALITY);
}

/** The picture as an element: drawn, since the page's policy takes no addresses but the server's own. */
export function pictureNode({ name, url }, most = MAX_SHOWN) {
  const canvas = el("canvas", { className: "picture", role: "img", "aria-label": name, width: 1, height: 1 });
  draw(canvas, url, most).catch(() => canvas.replaceWith(el("span", { className: "error" }, `${name} is damaged`)));
  return canvas;
}

async function draw(canvas, url, most) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (c) => c.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]));
  const part = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, bitmap.width * part * devicePixelRatio);
  canvas.height = Math.max(1, bitmap.height * part * devicePixelRatio);
  canvas.style.width = `${Math.max(1, Math.round(bitmap.width * part))}px`;
  const drawing = canvas.getContext("2d");
  drawing.imageSmoothingQuality = "high";
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

/** Whether this browser lets the page ask for a camera: only where it is local or comes over TLS. */
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** Shows what the camera sees until a picture is taken, or null. Throws where there is no camera or it is not allowed. */
export async function takePicture() {
  const video = { facingMode: "environment", width: { ideal: 1920 } };
  const stream = await navigator.mediaDevices.getUserMedia({ video });
  const view = el("video", { autoplay: true, muted: true, playsInline: true, srcObject: stream });
  const title = el("h2", { id: "camera-title" }, "Camera");
  const dialog = el("dialog", { id: "camera-view", "aria-labelledby": "camera-title" });
  const picture = await new Promise((done) => {
    const take = button("Take", "Take the picture", () => view.videoWidth && shoot(), "main");
    const shoot = () => {
      done({ name: `Camera ${new Date().toLocaleTimeString()}`, url: scaled(view, "image/jpeg") });
      dialog.close();
    };
    const close = button("Cancel", "Take none", () => dialog.close(), "");
    dialog.append(title, view, el("menu", {}, el("li", { className: "gap" }, close), el("li", {}, take)));
    dialog.addEventListener("close", () => done(null));
    document.body.append(dialog);
    dialog.showModal();
    take.focus();
  });
  for (const track of stream.getTracks()) track.stop();
  dialog.remove();
  $("prompt").focus();
  return picture;
}
