package redact

// Words that say what the number behind them is.
var (
	cardWords = []string{"card", "cc", "credit card", "visa", "mastercard", "amex", "maestro", "carte", "karte", "tarjeta", "pan"}
	idWords   = []string{"ssn", "social security", "social insurance", "national id", "nin", "sin", "bsn", "pesel", "cpf", "aadhaar", "aadhar",
		"personnummer", "personal number", "personal code", "cpr", "dni", "nie", "nif", "tax id", "steuer-id", "steueridentifikationsnummer", "idnr",
		"rijksregisternummer", "passport", "driver's license", "drivers license", "driving licence", "id card", "identity card"}
	phoneWords = []string{"phone", "phones", "tel", "telephone", "mobile", "cell", "cellphone", "fax", "whatsapp", "sms", "call me", "call us",
		"call me at", "call me on", "answering at", "reach us", "reach them", "call him", "call her", "call them", "dial", "text me", "reach me", "my number", "phone number", "telefon", "handy",
		"mobil", "telefono", "teléfono", "telefone", "téléphone"}
	otherNumberWords = []string{"order", "invoice", "ticket", "tracking", "ref", "reference", "id", "sku", "account", "case", "isbn", "issn", "serial",
		"version", "build", "commit", "row", "line", "port", "pid", "timestamp", "unix", "epoch", "bytes", "card", "iban", "zip", "doi", "ean", "upc", "asin",
		"model", "part", "#", "request", "transaction", "booking", "confirmation", "parcel", "receipt", "customer", "member", "policy", "seed"}
	versionWords = []string{"version", "versions", "v", "release", "build", "firmware", "driver", "oid", "upgrade to", "upgraded to", "chrome", "section", "clause"}
)
