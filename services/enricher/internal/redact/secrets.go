package redact

import "strings"

// secretForms are the beginnings of keys and tokens, and how many characters
// follow at least.
var secretForms = []struct {
	prefix string
	least  int
}{
	{"sk-", 16}, {"sk_live_", 16}, {"sk_test_", 16}, {"rk_live_", 16}, {"rk_test_", 16}, {"whsec_", 16},
	{"ghp_", 30}, {"gho_", 30}, {"ghu_", 30}, {"ghs_", 30}, {"ghr_", 30}, {"github_pat_", 30}, {"glpat-", 16},
	{"AKIA", 16}, {"ASIA", 16}, {"AIza", 30}, {"ya29.", 20},
	{"xoxb-", 16}, {"xoxp-", 16}, {"xoxa-", 16}, {"xoxr-", 16}, {"xoxs-", 16}, {"xapp-", 16},
	{"hf_", 24}, {"npm_", 30}, {"pypi-", 30}, {"SG.", 30}, {"dop_v1_", 30}, {"hs_", 16}, {"hp_", 16}, {"AGE-SECRET-KEY-", 30},
}

// secretEnd is the end of a key or token that begins at start and ends by end;
// 0 where none does.
func secretEnd(text string, start, end int) int {
	if end-start < 16 {
		return 0
	}
	to := start
	for to < end && isToken(text[to]) {
		to++
	}
	for to > start && strings.IndexByte(".-/+", text[to-1]) >= 0 {
		to--
	}
	word := text[start:to]
	for _, f := range secretForms {
		if strings.HasPrefix(word, f.prefix) && len(word) >= len(f.prefix)+f.least && mixed(word[len(f.prefix):]) {
			return to
		}
	}
	// A JSON Web Token: {" in base64, and two dots.
	if strings.HasPrefix(word, "eyJ") && strings.Count(word, ".") == 2 && len(word) > 40 {
		return to
	}
	// What follows "Bearer" or "Basic" in a header.
	if before := text[max(0, start-7):start]; len(word) >= 16 && mixed(word) && (strings.EqualFold(before, "bearer ") || strings.HasSuffix(before, "Basic ")) {
		return to
	}
	return 0
}

func isToken(c byte) bool {
	return classes[c]&(upperClass|lowerClass|digitClass|dashClass) != 0 || strings.IndexByte(".+/=~", c) >= 0
}

// mixed says whether there are digits and letters, as in what was drawn at
// random.
func mixed(s string) bool {
	var flags uint8
	for i := range len(s) {
		flags |= classes[s[i]]
	}
	return flags&digitClass != 0 && flags&(upperClass|lowerClass) != 0
}

// secretName says whether a name is one of a secret: "api_key", "DB_PASSWORD".
func secretName(name string) bool {
	if len(name) < 3 || len(name) > 40 {
		return false
	}
	name = strings.ToLower(name)
	for _, w := range secretWords {
		if strings.HasSuffix(name, w) {
			return true
		}
	}
	return false
}

var secretWords = []string{"password", "passwd", "passwort", "pwd", "passphrase", "secret", "token", "api_key", "apikey", "api-key", "access_key",
	"access-key", "private_key", "secret_key", "secretkey", "accesskey", "sig", "signature", "authorization", "auth"}

// assigned looks at what stands behind the : or = at colon, where a secret's
// name stands before it, and returns its end.
func (s *scanner) assigned(start, colon int) int {
	text := s.text
	for start < colon && !isLetter(text[start]) {
		start++
	}
	name := text[start:colon]
	if name == "" { // "name": in JSON
		to := strings.TrimRight(text[max(0, colon-48):colon], " \"'\\")
		name = to[strings.LastIndexAny(to, " \"'\\{,\n\t")+1:]
	}
	if !secretName(name) {
		return 0
	}
	i := colon + 1
	for i < len(text) && i < colon+4 && strings.IndexByte(" \"'`=\\", text[i]) >= 0 {
		i++
	}
	quoted := i > colon+1 && strings.IndexByte("\"'`", text[i-1]) >= 0
	to := i
	for to < len(text) && (classes[text[to]] != splitClass || quoted && strings.IndexByte("(){}[]<>|;,", text[to]) >= 0) {
		to++
	}
	if !quoted {
		for to > i && strings.IndexByte(".!?:", text[to-1]) >= 0 {
			to--
		}
	}
	value := text[i:to]
	// Code names a variable or calls a function there; a secret has digits.
	if len(value) < 6 || !mixed(value) || to < len(text) && text[to] == '(' || strings.Contains(value, "://") {
		return 0
	}
	s.add(i, to, Secret)
	return to
}

// pem covers a private key in PEM, from its first line to its last.
func (s *scanner) pem(start, end int) int {
	rest := s.text[start:]
	line, _, _ := strings.Cut(rest, "\n")
	if !strings.Contains(line, "PRIVATE KEY-----") {
		return end
	}
	to := len(rest)
	if i := strings.Index(rest, "-----END"); i > 0 {
		to = i + len("-----END")
		if j := strings.Index(rest[to:], "-----"); j >= 0 && j < 40 {
			to += j + 5
		}
	}
	s.add(start, start+to, Secret)
	return start + to
}
