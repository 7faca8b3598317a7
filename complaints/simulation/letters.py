"""Form letters, which many people send unchanged."""

from collections.abc import Mapping

__all__ = ["LETTERS"]

LETTERS: Mapping[str, tuple[str, ...]] = {
    "bank_account": (
        "I am submitting this complaint regarding the restriction of my deposit account and the failure of the "
        "institution to release my available funds under Regulation CC. {tail}",
    ),
    "cards": (
        "This is a formal billing error notice under the Fair Credit Billing Act. I dispute the charge that appears on "
        "my periodic statement and I request that it be removed at once. {tail}",
    ),
    "consumer_loan": (
        "I am a consumer as defined by law and I hereby give notice that the finance agreement for my vehicle was not "
        "disclosed as the Truth in Lending Act requires, and I rescind it. {tail}",
    ),
    "credit_reporting": (
        "In accordance with the Fair Credit Reporting Act, the list of accounts below has violated my federally "
        "protected consumer rights to privacy and confidentiality under 15 USC 1681. {tail}",
        "I am a victim of identity theft. Due to the inaccurate information that appears on my consumer file I ask "
        "that the following fraudulent items be blocked within four business days. {tail}",
        "The data furnisher and the consumer reporting agency did not conduct a reasonable investigation of the items "
        "that I disputed and returned them as verified without any document. {tail}",
    ),
    "debt_collection": (
        "I am sending this notice under the Fair Debt Collection Practices Act. I do not have a contract with this "
        "company, I never gave my consent, and I demand full validation of the debt. {tail}",
        "This is not a refusal to pay but a notice that your claim is disputed. Under 15 USC 1692g you must cease all "
        "contact until the alleged account has been validated in full. {tail}",
    ),
    "money_transfer": (
        "I report an unauthorized electronic fund transfer under Regulation E. I did not authorize the payment that "
        "was sent from my wallet and the provider closed my claim without a review. {tail}",
    ),
    "mortgage": (
        "This letter is a qualified written request under the Real Estate Settlement Procedures Act concerning the "
        "servicing of my home loan and the accounting of my escrow balance. {tail}",
    ),
    "other": (
        "I request a full refund of all advance fees under the Telemarketing Sales Rule. I enrolled in a program to "
        "reduce what I owe and none of the promised services were performed. {tail}",
    ),
    "student_loan": (
        "I submit this borrower defense complaint because my education loan was obtained through misrepresentation "
        "and the servicer has refused to apply the discharge that I am entitled to. {tail}",
    ),
}
"""Form letters: texts that share more than their first 120 characters and differ in their tail, or not at all."""
