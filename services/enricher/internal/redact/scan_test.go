package redact

import (
	"testing"
)

// TestForms has what the detectors must find, between brackets ⟦type|…⟧.
func TestForms(t *testing.T) {
	tests := []string{
		"write to ⟦email|jo.doe+x@mail.example.co.uk⟧, please.",
		"⟦email|müller@example.de⟧ and <⟦email|a_b@example.org⟧>",
		`{"email":"⟦email|a@example.com⟧","phone":"⟦phone|+49 30 901820⟧"}`,
		"call me at ⟦phone|555 0199 22⟧ or ⟦phone|(201) 555-0123⟧ x",
		"⟦phone|+1-903-140-4508x769⟧, ⟦phone|0049 30 1234567⟧, ⟦phone|01 23 45 67 89⟧, ⟦phone|541-714-1388⟧",
		"⟦phone|+41 (0)62 585 51 90⟧.",
		"my card ⟦card|4111 1111 1111 1111⟧ and ⟦card|4111111111111111⟧, ⟦card|3782-822463-10005⟧",
		"maestro card ⟦card|503867297114⟧",
		"IBAN ⟦iban|GB29 NWBK 6016 1331 9268 19⟧, ⟦iban|DE89370400440532013000⟧, ⟦iban|gb82west12345698765432⟧",
		"ssn ⟦national_id|078-05-1120⟧ and SSN: ⟦national_id|078051120⟧",
		"CPF ⟦national_id|529.982.247-25⟧, DNI ⟦national_id|12345678Z⟧, NIE ⟦national_id|X1234567L⟧, RUT ⟦national_id|12.345.678-5⟧",
		"codice fiscale ⟦national_id|RSSMRA85T10A562S⟧",
		"NI number ⟦national_id|AB123456C⟧ or ⟦national_id|AB 12 34 56 C⟧",
		"hetu ⟦national_id|131052-308T⟧, personnummer ⟦national_id|811218-9876⟧, NIR ⟦national_id|255081416802538⟧, BSN ⟦national_id|111222333⟧",
		"PESEL ⟦national_id|44051401359⟧, Aadhaar ⟦national_id|2341 2341 2346⟧, RRN ⟦national_id|85.07.30-033.28⟧",
		"from ⟦ip|19.253.176.22⟧ and ⟦ip|2001:db8:85a3::8a2e:370:7334⟧ or ⟦ip|6e40:4041:c617:e898:c11:40d2:c669:2eb4⟧.",
		"http://⟦ip|10.20.30.40⟧:8080/x",
		"postgres://⟦credentials|admin:hunter2⟧@db.example.com:5432/shop",
		"see ⟦url|https://www.example.com/a_(b)?c=d#e⟧.",
		"https://api.example.com/v1?token=⟦secret|abc123def456⟧&x=1",
		"export OPENAI_API_KEY=⟦secret|sk-proj-abcd1234EFGH5678ijkl⟧",
		"⟦secret|ghp_16C7e42F292c6912E7710c838347Ae178B4a⟧ ⟦secret|AKIAIOSFODNN7EXAMPL2⟧ ⟦secret|hs_4c19f0a2b3d4e5f60718⟧",
		"Authorization: Bearer ⟦secret|abcdef1234567890abcdef⟧",
		"⟦secret|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N⟧",
		`{"password": "⟦secret|x1y2z3,!⟧", "user": "jo"}`,
		"my password is ⟦secret|hunter22⟧",
		"-----BEGIN note",
		"⟦secret|-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----⟧ end",
		"born ⟦date|1971-09-07 22:49:16⟧ or ⟦date|2/10/1985⟧",
	}
	for _, marked := range tests {
		text, want := unmark(t, marked)
		got := Find(text, SetOf(Email, Phone, Card, IBAN, NationalID, IP, Secret, Credentials, URL, Date))
		if show := mark(text, got); show != marked {
			t.Errorf("got  %s\nwant %s %v", show, marked, want)
		}
	}
}

// TestWords has what is told by its words, on texts that the tagger did not
// learn from. It stands for the obvious cases; make eval-pii measures the rest.
func TestWords(t *testing.T) {
	for _, marked := range []string{
		"Hello, my name is ⟦name|Katarina Nowak⟧ and my parcel is late.",
		"I live at ⟦address|12 Garden Street⟧, please send it there.",
		"Meine Adresse ist nun ⟦address|Hauptstraße 12⟧, und der Schuh drückt am Ballen.",
		"He turned ⟦age|42⟧ in ⟦date|1999⟧.",
		"Do you ship to ⟦country|New Zealand⟧ or to ⟦country|Norway⟧?",
		"Can I return worn shoes? My order number is 4711-0815.",
		"<NAME_0042> wrote to <EMAIL_4821> twice.",
	} {
		text, _ := unmark(t, marked)
		if got := mark(text, Find(text, AllTypes)); got != marked {
			t.Errorf("got  %s\nwant %s", got, marked)
		}
	}
}
