// Two small charts: tokens/s over the last minute, and what the latest passes carried.

function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(canvas);
  return { pen, width, height, ink: style.color, soft: style.getPropertyValue("--chart-soft").trim() };
}

/** `values`: oldest first, null where nothing is known; the newest at the right edge, `room` of them in all. */
export function drawLine(canvas, values, room) {
  const { pen, width, height, ink, soft } = prepare(canvas);
  if (!width) return;
  const top = Math.max(...values.map((v) => v ?? 0), 1e-9) * 1.1;
  const x = (i) => width - ((values.length - 1 - i) / (room - 1)) * width;
  const y = (v) => height - 1 - ((v ?? 0) / top) * (height - 2);
  pen.beginPath();
  values.forEach((v, i) => pen.lineTo(x(i), y(v)));
  pen.strokeStyle = ink;
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  pen.stroke();
  pen.lineTo(x(values.length - 1), height);
  pen.lineTo(x(0), height);
  pen.fillStyle = soft;
  pen.fill();
}

/** `passes`: [tokens, answers] of each, oldest first. Tokens (on a scale that shows 2 beside 128) behind, answers in
 *  front. */
export function drawBars(canvas, passes, room) {
  const { pen, width, height, ink, soft } = prepare(canvas);
  if (!width) return;
  const step = width / room;
  const top = Math.log2(1 + Math.max(16, ...passes.map(([tokens]) => tokens)));
  passes.forEach(([tokens, answers], i) => {
    const x = width - (passes.length - i) * step;
    for (const [value, fill] of [
      [tokens, soft],
      [answers, ink],
    ]) {
      const tall = Math.max(1, (Math.log2(1 + value) / top) * height);
      pen.fillStyle = fill;
      pen.fillRect(x, height - tall, Math.max(1, step - 1), tall);
    }
  });
}
