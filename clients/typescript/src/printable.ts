/** Makes texts of others safe to print on a terminal. */

/** Control characters except the line break; characters that change the reading direction; some without width. */
const UNSEEN =
  /[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{1d173}-\u{1d17a}\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;
const BREAKS = /\r\n|[\n\r\v\f\x85\u2028\u2029]/g;

/** The text without invisible characters; line breaks stay. */
export function printable(text: string): string {
  return text.replace(BREAKS, "\n").replaceAll("\t", " ").replace(UNSEEN, "");
}
