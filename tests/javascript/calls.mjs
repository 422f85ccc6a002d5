// Calls endpoints of the app at the address given and prints a JSON list of what each answers, in order:
// {"answer": ...} or {"error": "the sentence"}. The calls come as JSON on the standard input: [["/search", {...}], ...].
import { readFileSync } from "node:fs";
import { Client } from "@gradio/client";

const app = await Client.connect(process.argv[2]);
const answers = [];
for (const [endpoint, parameters] of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    const { data } = await app.predict(endpoint, parameters);
    answers.push({ answer: data[0] });
  } catch (error) {
    answers.push({ error: error.message });
  }
}
process.stdout.write(JSON.stringify(answers), () => process.exit(0)); // the client holds a connection open
